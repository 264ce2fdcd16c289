"""DIRECT sampling: encode, reduce, cluster, pick, and say what is covered."""
