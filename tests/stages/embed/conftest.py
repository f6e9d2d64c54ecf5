"""Before the tests are read: they import open_clip."""

from stages.embed.torchvision_guard import make_torchvision_importable

make_torchvision_importable()
