"""How far a share that was counted in a sample may be from the true one."""

import math

Z95 = 1.959964


def interval(share: float, num: int) -> tuple[float, float]:
    """95 %, after Wilson. Wide enough: no mean of figures between 0 and 1 varies more than that of zeros and ones."""
    middle = (share + Z95**2 / (2 * num)) / (1 + Z95**2 / num)
    half = Z95 / (1 + Z95**2 / num) * math.sqrt(share * (1 - share) / num + (Z95 / (2 * num)) ** 2)
    return max(middle - half, 0.0), min(middle + half, 1.0)
