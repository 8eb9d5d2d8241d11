"""The cross entropy of the contrastive losses."""
import paddle.nn.functional as F


def mean_cross_entropy(logits_bn, labels_b, *embeddings):
    """Mean over B rows of the cross entropy between logits and classes, in nats; scalar.

    Args:
        logits_bn: [B, N], float32.
        labels_b: the class of each row, [B], int64.
        embeddings: what the logits are similarities of. Where one is NaN or infinite the result is NaN; of the logits
            alone Paddle's CPU kernel sees nothing: NaN count as equal scores there, log(N), with a gradient of 0.
    """
    # Averaged here, because Paddle 2.6 waits for the device to average.
    loss = F.cross_entropy(logits_bn, labels_b, reduction="none").mean()
    return loss + sum(0.0 * embedding.detach().sum() for embedding in embeddings)
