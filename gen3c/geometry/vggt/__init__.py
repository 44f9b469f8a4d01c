"""VGGT: depth and cameras of many pictures in one pass of one network (Wang et al., CVPR 2025, arXiv 2503.11651).

Written from the published arithmetic; the names of the weights are those of facebook/VGGT-1B.
"""
