"""A small process that speaks with Pico: `python -I -S pico_server.py PACKAGES PATIENCE`. It needs nothing but py-nanotts.

Each line of its input asks for one clip, as JSON. The answer is a line, `pcm BYTES` or `error BYTES`, and that many bytes: 16-bit
samples at 16 kHz, or a traceback. A clip that takes more than PATIENCE seconds ends the process with SIGALRM.
"""

import json
import signal
import sys
import traceback


def main() -> None:
    """Answer until the input ends."""
    sys.path.append(sys.argv[1])
    from py_nanotts import NanoTTS

    patience = float(sys.argv[2])
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, patience)  # it ends the process in the middle of the library, too
        try:
            what, answer = "pcm", NanoTTS().speak(**json.loads(line))
        except Exception as error:
            if "pico_getData" in str(error):  # what Pico says of a text that it cannot say
                what, answer = "pcm", b""
            else:
                what, answer = "error", traceback.format_exc().encode()
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(f"{what} {len(answer)}\n".encode() + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
