"""What people look at: a run, a comparison of two, and a fused model, each as one HTML page; and tables of scores."""
