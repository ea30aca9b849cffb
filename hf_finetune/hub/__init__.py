"""Publishing on the Hugging Face Hub: rights, one commit, and what its refusals mean."""
