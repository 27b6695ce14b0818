"""The product from Python, beside pandas: read a run, take its front, choose a model; load, inspect or export it.

`import atmc_search` offers all of it. What only reads tables imports no torch.
"""
