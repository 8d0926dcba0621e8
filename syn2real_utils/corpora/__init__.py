"""Real speech: one module per corpus, each with `prepare(part, folds, store, into)`; `base` holds what they share."""
