"""The cross entropy of the contrastive losses."""
import paddle.nn.functional as F


def mean_cross_entropy(logits_bn, labels_b, *embeddings):
    """Mean cross entropy between logits and classes over B rows, in nats; NaN if an embedding is not finite.

    Paddle's CPU kernel takes NaN logits for equal ones and returns log(N) with a gradient of 0. So the embeddings are
    looked at too.

    Args:
        logits_bn: [B, N], float32.
        labels_b: class index of each row, [B], int64.
        *embeddings: tensors that the logits are similarities of, any shape.
    Returns:
        Scalar.
    """
    # Averaged here, because Paddle 2.6 waits for the device to average.
    loss = F.cross_entropy(logits_bn, labels_b, reduction="none").mean()
    return loss + sum(0.0 * embedding.detach().sum() for embedding in embeddings)
