"""ASR models: where their weights come from, and what is needed around them."""
