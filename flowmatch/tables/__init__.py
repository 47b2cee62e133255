"""Users' data as named columns of numbers, and back: frames, arrays, tensors; dates, text, categories, keys."""
