"""What a model is: the contract, the transforms around it, and what runs one on arrays."""
