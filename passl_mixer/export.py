"""``passl_mixer.export``, the public path of ``passl_mixer.deploy.export``."""
from passl_mixer.deploy.export import export_checkpoint, export_network, load_exported

__all__ = ["export_checkpoint", "export_network", "load_exported"]
