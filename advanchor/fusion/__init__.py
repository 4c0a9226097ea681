"""Hundreds of independent erasures become one model, in closed form.

For a projection W0 (d_out x D), concept i has a delta dW_i (d_out x D) and token embeddings E_i (D x n_i); retained
prompts have E_p. The fused delta is the least-squares answer (the form of MACE, Lu et al. 2024, arXiv 2403.06135)

    dW = ( sum_i dW_i E_i E_i^T ) ( sum_i E_i E_i^T + gamma E_p E_p^T + lambda I )^-1    subject to    dW C = 0,

where C holds the embeddings that must stay exactly as they are.
"""
