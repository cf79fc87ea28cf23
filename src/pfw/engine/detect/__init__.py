"""Detection: what is suspicious in many observations together. One file a detector."""
