"""The network: tokenizer, transformer, masked autoencoder, heads, checkpoints."""
