"""A keyword spotter that also reads the eight words before: two inputs, scores and an answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BANDS, FRAMES = 40, 98
WORDS, VOCABULARY = 8, 500
KEYWORDS = 12


class Spotter(nn.Module):
    """Convolutions over the spectrogram, the mean of the words' vectors, one linear over both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.embedding = nn.Embedding(VOCABULARY, 32)
        self.head = nn.Linear(64, KEYWORDS)

    def forward(self, audio: Tensor, words: Tensor) -> dict[str, Tensor]:
        """audio: [N, 1, 40, 98], log mel; words: [N, 8], ids. scores: [N, 12]; answer: [N]."""
        heard = torch.relu(self.second(torch.relu(self.first(audio)))).mean(dim=(2, 3))
        read = self.embedding(words).mean(dim=1)
        scores = self.head(torch.cat((heard, read), dim=1))
        return {"scores": scores, "answer": scores.argmax(dim=1)}


def spotter() -> nn.Module:
    """The network, untrained."""
    return Spotter()
