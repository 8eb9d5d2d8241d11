"""Published ImageNet-1k top-1 accuracies, in percent, of networks trained on ImageNet-1k alone at 224 px.

Each has the source of the number; none was measured here. Missing names have no known published number.
"""

_SOURCES = {
    "arXiv 2105.01601, table 3": {"mlp_mixer_b16": 76.44, "mlp_mixer_l16": 71.76},
    "arXiv 2105.03404, table 3": {"resmlp_s12": 76.6, "resmlp_s24": 79.4, "resmlp_s36": 79.7, "resmlp_b24": 81.0,
                                  "resmlp_b24_8": 81.0},
    "arXiv 2105.08050, table 2, restated": {"gmlp_ti16": 72.3, "gmlp_s16": 79.6, "gmlp_b16": 81.6},
    "SHI-Labs/Convolutional-MLPs README": {"conv_mlp_s": 76.8, "conv_mlp_m": 79.0, "conv_mlp_l": 80.2},
    "ShoufaChen/CycleMLP README": {"cycle_mlp_b1": 78.9, "cycle_mlp_b2": 81.6, "cycle_mlp_b3": 82.4,
                                   "cycle_mlp_b4": 83.0, "cycle_mlp_b5": 83.2},
    "Andrew-Qibin/VisionPermutator README": {"vip_s7": 81.5, "vip_m7": 82.7, "vip_l7": 83.2},
    "svip-lab/AS-MLP README": {"as_mlp_t": 81.3, "as_mlp_s": 83.1, "as_mlp_b": 83.3},
    "arXiv 2108.01072, abstract": {"s2_mlp_v2_medium": 83.6},
    "PosMLP README": {"s2_mlp_v1_deep": 80.7},
    "locuslab/convmixer README": {"conv_mixer_1536_20": 81.37, "conv_mixer_768_32": 80.16,
                                  "conv_mixer_1024_20": 76.94},
    "ggjy/Hire-Wave-MLP.pytorch README": {"hire_mlp_tiny": 79.7, "hire_mlp_small": 82.1, "hire_mlp_base": 83.2,
                                          "hire_mlp_large": 83.8, "wave_mlp_t_star": 80.1, "wave_mlp_t": 80.9,
                                          "wave_mlp_s": 82.9, "wave_mlp_m": 83.3},
}

# name -> (top-1 in percent, where it was read)
PUBLISHED_TOP1 = {name: (top1, source) for source, rows in _SOURCES.items() for name, top1 in rows.items()}
