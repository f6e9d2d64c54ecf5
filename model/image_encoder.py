from torch import Tensor, nn

from model.config import ImageEncoderConfig


class ImageEncoder(nn.Module):
    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, config.width, config.patch_size, config.patch_size, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.conv1(pixels).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]
