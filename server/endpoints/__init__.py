"""The endpoints: which ones there are, who sends to them, and how they are tried and looked up."""
