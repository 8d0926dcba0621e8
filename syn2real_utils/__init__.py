"""SYN2REAL: task arithmetic that closes the synthetic-to-real gap in speech recognition (Su et al., EMNLP 2024)."""

__version__ = "0.1.0"
