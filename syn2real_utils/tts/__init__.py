"""TTS engines: one file per engine, and what they share in `base`."""
