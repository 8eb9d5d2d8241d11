"""Ranges and probabilities of the recipes that the views peers follow, as in ``passl_mixer/data``. Standard library."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#           crop_min, interpolation, jitter, normalise, (blur_p, solarize_p) of each view
RECIPES = {
    "simclr": (0.08, "bicubic", (0.8, 0.8, 0.8, 0.2), False, ((0.5, 0.0), (0.5, 0.0))),
    "moco_v2": (0.2, "bilinear", (0.4, 0.4, 0.4, 0.1), True, ((0.5, 0.0), (0.5, 0.0))),
    "byol": (0.08, "bicubic", (0.4, 0.4, 0.2, 0.1), True, ((1.0, 0.0), (0.1, 0.2))),
}
JITTER_P, GRAY_P, SIGMAS = 0.8, 0.2, (0.1, 2.0)


def serve(channel, decode, views: list, versions: dict) -> None:
    """Measure steps: ``images`` files of the set-up's ``files``, from their bytes in memory to the views' tensors.

    Args:
        channel: of ``protocol``.
        decode: bytes of a file -> image.
        views: functions of an image.
        versions: of the libraries, for the answers.
    """
    files = []
    for path in channel.setup["files"]:
        with open(path, "rb") as file:
            files.append(file.read())
    count, position = channel.setup.get("images", 16), 0

    def step() -> None:
        nonlocal position
        for _ in range(count):
            image = decode(files[position % len(files)])
            position += 1
            made = [tuple(view(image).shape) for view in views]
            if made != [made[0]] * len(views) or made[0][0] != 3:
                raise ValueError(f"the views are {made}; expected [3, S, S], all alike")

    channel.serve({"step": step}, {"step": {"images": count, "versions": versions}})
