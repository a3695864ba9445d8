"""`make demo`: the whole job on one machine, told step by step."""
