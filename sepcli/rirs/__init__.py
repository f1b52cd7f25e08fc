"""What `rt60` and `rir-decay` do: room impulse responses, measured and shortened."""
