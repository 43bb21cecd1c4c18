"""Networks trained by published Bayesian libraries; `frame` says how to add one."""
