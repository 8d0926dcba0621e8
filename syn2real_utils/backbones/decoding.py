"""Greedy decoding that checks guesses: a transcript that is nearly known costs few passes of the decoder.

One pass says what follows each token that the decoder is given, so the tokens of a guess are checked at once. Those that are
what the model says are kept, with the token after them; what it says behind the first wrong one is the next guess. The
transcript is that of one token after the other, but for rounding. Without a guess every pass gives one token. (Speculative decoding:
Leviathan et al. 2023; the next guess as in Jacobi decoding: Santilli et al. 2023. Here a guess is what the model heard at the lam before.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

from syn2real_utils.backbones.context import Heard

AT_ONCE = 64  # tokens whose logits are in memory at once
AHEAD = 64  # tokens of a guess that are checked at once, our choice: a long wrong one would make every pass of its batch wide
# Logit of a token that may not be said; probability 0 times this is 0, times -inf it is nan
NEVER = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Rules:
    """What the decoder begins with, how it ends, and what it may not say."""

    prompt: list[int]
    end: int
    banned: list[int]
    banned_first: list[int]  # of the first token after the prompt


class Said:
    """The transcript of one clip, as far as it goes."""

    def __init__(self, most: int, end: int):
        self.most, self.end = most, end  # tokens at most
        self.tokens: list[int] = []  # without the end of text
        # number, log-probability and entropy of the tokens and the end
        self.sureness = torch.zeros(3, dtype=torch.float64)

    @property
    def room(self) -> int:
        """Tokens that may still be said."""
        return self.most - len(self.tokens)

    def next(self, tokens: list[int]) -> tuple[int, bool]:
        """How many of `tokens` are said next, the end of text too, and whether it is over then."""
        tokens = tokens[: self.room]
        if self.end in tokens:
            return tokens.index(self.end) + 1, True
        return len(tokens), len(tokens) == self.room

    def add(self, tokens: list[int], sureness: torch.Tensor | None) -> None:
        """Say `tokens`; `sureness` (tokens, 3)."""
        self.tokens += [token for token in tokens if token != self.end]
        if sureness is not None:
            self.sureness += sureness.sum(0)


def greedy(
    model: WhisperForConditionalGeneration,
    head: torch.Tensor,
    heard: Heard,
    rules: Rules,
    most: Sequence[int],
    guesses: Sequence[list[int]],
    sure: bool = True,
) -> list[Said]:
    """The likeliest token after each, until the end of text.

    Args:
        model: whose decoder speaks.
        head: the projection on the tokens, (tokens, dimensions).
        heard: what the encoder made of the clips; used up.
        rules: of the tokens.
        most: tokens of each clip at most.
        guesses: tokens that each clip's transcript may begin with; as good as any other if they are wrong.
        sure: keep how sure the model was.
    """
    said = [Said(limit, rules.end) for limit in most]
    going, cache, decoder = list(said), None, model.get_decoder()
    given = torch.tensor([rules.prompt] * len(said), device=heard.states.device)
    guess = _cut(_padded(guesses, rules.end).to(given.device), going, rules.end)
    with heard.attended(model):
        while going:
            tokens = torch.cat([given, guess], dim=1)
            out = decoder(tokens, encoder_hidden_states=heard.states, past_key_values=cache, use_cache=True)
            states = out.last_hidden_state[:, given.shape[1] - 1 :]
            best, sureness = _best(head, states, guess, rules, first=cache is None, sure=sure)
            cache = out.past_key_values
            right, keep = _take(going, guess, best, sureness)
            cache.crop(right - guess.shape[1])
            if len(keep) < len(going):  # clips that are done leave the batch
                kept = torch.tensor(keep, dtype=torch.long, device=given.device)
                cache.batch_select_indices(kept)
                heard.keep(kept)
                best, going = best[kept], [going[at] for at in keep]
            given, guess = best[:, right : right + 1], _cut(best[:, right + 1 :], going, rules.end)
    return said


def _take(
    going: Sequence[Said], guess: torch.Tensor, best: torch.Tensor, sureness: torch.Tensor | None
) -> tuple[int, list[int]]:
    """Add what is known after a pass to each transcript: how many guesses all have right that are not over, and which these are."""
    right = (best[:, :-1] == guess).cumprod(-1).sum(-1).tolist()
    spoken = best.tolist()
    nexts = [said.next(tokens[: n + 1]) for said, tokens, n in zip(going, spoken, right, strict=True)]
    keep = [at for at, (_, over) in enumerate(nexts) if not over]
    shared = min((right[at] for at in keep), default=0)
    for at, (said, (count, over)) in enumerate(zip(going, nexts, strict=True)):
        count = count if over else shared + 1
        said.add(spoken[at][:count], None if sureness is None else sureness[at, :count])
    return shared, keep


def _best(
    head: torch.Tensor, states: torch.Tensor, guess: torch.Tensor, rules: Rules, first: bool, sure: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The likeliest token after each of `states` (clips, guesses + 1, dimensions), and how sure that is, (clips, guesses + 1, 3).

    Behind the end of a guess nothing is asked: there it is the end of text. `first`: the first ones begin a transcript.
    """
    asked = nn.functional.pad(_open(guess, rules.end), (1, 0), value=True)
    starts = torch.zeros_like(asked)
    starts[:, 0] = first
    found, known = [], []
    for some, start in zip(states[asked].to(head.dtype).split(AT_ONCE), starts[asked].split(AT_ONCE), strict=True):
        logits = nn.functional.linear(some, head).float()
        logits[:, rules.banned] = NEVER
        logits[start.nonzero(), rules.banned_first] = NEVER
        found.append(logits.argmax(-1))
        if sure:
            known.append(_sureness(logits, found[-1]))
    best = torch.full_like(asked, rules.end, dtype=torch.long)
    best[asked] = torch.cat(found)
    if not sure:
        return best, None
    sureness = torch.zeros(*asked.shape, 3, dtype=torch.float64)
    sureness[asked.cpu()] = torch.cat(known)
    return best, sureness


def _sureness(logits: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """1, log-probability and entropy of the likeliest token `best` of each row of `logits` (rows, tokens): float64 (rows, 3)."""
    top = logits.gather(-1, best[:, None])
    weights = (logits - top).exp_()
    whole = weights.sum(-1)
    entropy = top[:, 0] + whole.log() - weights.mul_(logits).sum(-1) / whole
    return torch.stack([torch.ones_like(whole), -whole.log(), entropy], dim=-1).double().cpu()


def _padded(guesses: Sequence[list[int]], end: int) -> torch.Tensor:
    """int64 (clips, longest guess), ends of text behind the shorter."""
    rows = [torch.tensor(guess, dtype=torch.long) for guess in guesses]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)


def _open(guess: torch.Tensor, end: int) -> torch.Tensor:
    """Which of a guess (clips, tokens) come before its end of text: bool."""
    return (guess == end).cumsum(-1) == 0


def _cut(guess: torch.Tensor, going: Sequence[Said], end: int) -> torch.Tensor:
    """The columns of a guess that are worth a look: before the end of text of one of the rows, and of all that it may still say."""
    room = max((said.room for said in going), default=1)
    return guess[:, : min(int(_open(guess, end).any(0).sum()), room - 1, AHEAD)]
