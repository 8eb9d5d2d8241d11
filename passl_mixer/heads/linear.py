"""The classifier: one linear map from pooled features to class scores."""
from paddle import nn

from passl_mixer.errors import BadInput


class LinearHead(nn.Layer):
    """Linear classifier with zero weight and bias, so that the loss starts at log(num_classes).

    Args:
        in_features: D, width of the features.
        num_classes: C, number of classes.
    Raises:
        BadInput: a width or a number of classes below 1.
    Source: MLP-Mixer, arXiv:2105.01601, official code (zero-initialised head).
    """

    def __init__(self, in_features: int, num_classes: int):
        super().__init__()
        if in_features < 1 or num_classes < 1:
            raise BadInput(f"a linear head needs in_features >= 1 and num_classes >= 1, got {in_features} "
                           f"and {num_classes}")
        self.in_features, self.out_features = in_features, num_classes
        zero = nn.initializer.Constant(0.0)
        self.fc = nn.Linear(in_features, num_classes, weight_attr=zero, bias_attr=zero)

    def forward(self, features):
        """Class scores [B, num_classes] of features [B, in_features]."""
        return self.fc(features)
