"""Running a model file: tokens in, tokens out, and the text around them."""
