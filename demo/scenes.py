"""Drawn scenes with captions that are true of them: 12,800 kinds of scene, each in any number of views.

A scene says what is seen (object, colour, count, place, texture); its `view` decides where and how large. Everything
is large enough to be told apart at 64 px after a resize to the short side and a centre crop.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from PIL import Image, ImageDraw

Point = tuple[float, float]
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    object: str  # of OBJECTS
    colour: str  # of COLOURS
    count: int  # of COUNTS
    place: str  # of PLACES
    texture: str  # of TEXTURES
    view: int  # seed of positions, sizes, tilt, light


def _circle(t: float) -> Point:
    return math.cos(t), math.sin(t)


def _heart(t: float) -> Point:
    x = 16 * math.sin(t) ** 3
    y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    return x / 16, -(y + 2) / 16


def _fish(t: float) -> Point:
    """The fish curve: the negative pedal of an ellipse, with its tail at the left."""
    return 0.8 * (math.cos(t) - math.sin(t) ** 2 / math.sqrt(2)) + 0.2, 1.5 * math.cos(t) * math.sin(t)


def _moon(t: float) -> Point:
    """A crescent: the outer arc for t in 0…π, back along the inner one."""
    x, y = math.sin(t), math.cos(t)
    return (0.35 - 1.3 * x, y) if t < math.pi else (0.35 + 0.55 * x, y)


def _star(t: float) -> Point:
    radius = 1.0 if round(t * 5 / math.pi) % 2 == 0 else 0.42
    return radius * math.sin(t), -radius * math.cos(t)


def _trace(curve: Callable[[float], Point], points: int) -> list[Point]:
    return [curve(2 * math.pi * i / points) for i in range(points)]


_HALF_TREE = [(0, -1), (0.5, -0.4), (0.25, -0.4), (0.75, 0.2), (0.4, 0.2), (0.9, 0.7), (0.2, 0.7), (0.2, 1)]
_HALF_CROSS = [(0, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33), (0.33, 1), (0, 1)]


def _mirrored(half: list[Point]) -> list[Point]:
    return half + [(-x, y) for x, y in reversed(half)]


_OUTLINES: dict[str, list[Point]] = {  # in a square from -1 to 1, y downwards
    "ball": _trace(_circle, 28),
    "box": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "star": _trace(_star, 10),
    "heart": _trace(_heart, 32),
    "house": [(0, -1), (0.95, -0.15), (0.65, -0.15), (0.65, 0.9), (-0.65, 0.9), (-0.65, -0.15), (-0.95, -0.15)],
    "fish": _trace(_fish, 36),
    "moon": _trace(_moon, 32),
    "arrow": [(1, 0), (0.1, -0.85), (0.1, -0.35), (-1, -0.35), (-1, 0.35), (0.1, 0.35), (0.1, 0.85)],
    "cross": _mirrored(_HALF_CROSS),
    "tree": _mirrored(_HALF_TREE),
}
_PLURALS = {name: name + "s" for name in _OUTLINES} | {"box": "boxes", "fish": "fish", "cross": "crosses"}
_RGB: dict[str, Rgb] = {
    "red": (214, 32, 36),
    "orange": (248, 138, 18),
    "yellow": (246, 224, 40),
    "green": (36, 150, 58),
    "blue": (36, 78, 214),
    "purple": (132, 46, 164),
    "pink": (248, 144, 196),
    "brown": (122, 72, 34),
    "black": (24, 24, 26),
    "white": (246, 246, 246),
}
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
_CENTRES: dict[int, list[Point]] = {  # in the central square, 0…1
    1: [(0.5, 0.52)],
    2: [(0.27, 0.45), (0.73, 0.55)],
    3: [(0.27, 0.3), (0.73, 0.36), (0.48, 0.75)],
    4: [(0.27, 0.27), (0.73, 0.3), (0.27, 0.73), (0.73, 0.75)],
}
_RADII = {1: 0.34, 2: 0.2, 3: 0.19, 4: 0.185}  # of the central square's side


def _specks(draw: ImageDraw.ImageDraw, rng: Random, size: Point, horizon: float, rgb: Rgb) -> None:
    radius = 0.014 * min(size)
    for _ in range(30):
        x, y = rng.random() * size[0], rng.random() * size[1]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rgb)


def _bars(draw: ImageDraw.ImageDraw, rng: Random, size: Point, horizon: float, rgb: Rgb) -> None:
    width, step = size[0] * 0.07, size[0] * 0.14
    for i in range(8):
        x, top = i * step + rng.random() * width, rng.random() * horizon * 0.6
        draw.rectangle((x, top, x + width, horizon), fill=rgb)


def _waves(draw: ImageDraw.ImageDraw, rng: Random, size: Point, horizon: float, rgb: Rgb) -> None:
    thickness = max(1, round(0.02 * min(size)))
    for i in range(4):
        y, lift = horizon + (size[1] - horizon) * (i + 0.5) / 4, size[1] * rng.uniform(0.02, 0.06)
        points = [(size[0] * j / 8, y + lift * (-1) ** j) for j in range(9)]
        draw.line(points, fill=rgb, width=thickness, joint="curve")


@dataclass(frozen=True)
class _Backdrop:
    where: str
    name: str
    sky: Rgb
    ground: Rgb
    marks: Rgb
    draw_marks: Callable[[ImageDraw.ImageDraw, Random, Point, float, Rgb], None]


_BACKDROPS = {
    "beach": _Backdrop("on a beach", "a beach", (120, 200, 236), (240, 218, 164), (222, 190, 124), _specks),
    "meadow": _Backdrop("in a meadow", "a meadow", (168, 216, 250), (124, 196, 84), (90, 160, 60), _waves),
    "forest": _Backdrop("in a forest", "a forest", (62, 104, 66), (48, 72, 40), (92, 64, 40), _bars),
    "desert": _Backdrop("in a desert", "a desert", (252, 206, 140), (226, 158, 86), (196, 124, 58), _waves),
    "snow": _Backdrop("in the snow", "the snow", (190, 202, 220), (240, 244, 250), (255, 255, 255), _specks),
    "sea": _Backdrop("on the sea", "the sea", (150, 196, 232), (26, 88, 156), (120, 176, 216), _waves),
    "night sky": _Backdrop("in the night sky", "the night sky", (14, 18, 48), (22, 26, 66), (250, 244, 200), _specks),
    "city": _Backdrop("in a city", "a city", (182, 186, 196), (96, 98, 104), (128, 118, 122), _bars),
}

OBJECTS = tuple(_OUTLINES)
COLOURS = tuple(_RGB)
COUNTS = tuple(_NUMBERS)
PLACES = tuple(_BACKDROPS)
TEXTURES = ("plain", "striped", "dotted", "checked")
PHRASINGS = (
    "{number} {colour} {texture} {objects} {where}",
    "a picture of {number} {texture} {colour} {objects} {where}",
    "{number} {objects} {where}, {colour} and {texture}",
    "{place} with {number} {colour} {texture} {objects}",
    "{colour} {objects} {where}, {number} in all, {texture}",
    "{where} we saw {number} {texture} {objects} in {colour}",
    "{number} {colour} {objects} {where}",
    "{number} {texture} {colour} {objects}",
)
"""What `caption` fills in. The last two leave out one attribute, the texture and the place."""


def random_scene(rng: Random) -> Scene:
    """Every attribute drawn evenly and independently, with a view of its own."""
    return Scene(
        object=rng.choice(OBJECTS),
        colour=rng.choice(COLOURS),
        count=rng.choice(COUNTS),
        place=rng.choice(PLACES),
        texture=rng.choice(TEXTURES),
        view=rng.getrandbits(48),
    )


def another_view(scene: Scene, rng: Random) -> Scene:
    """The same attributes, so the same captions, in another picture."""
    return replace(scene, view=rng.getrandbits(48))


def caption(scene: Scene, phrasing: str) -> str:
    """What is true of the scene, in one of PHRASINGS (or any template with the same fields)."""
    backdrop = _BACKDROPS[scene.place]
    return phrasing.format(
        number=_NUMBERS[scene.count],
        colour=scene.colour,
        texture=scene.texture,
        objects=scene.object if scene.count == 1 else _PLURALS[scene.object],
        where=backdrop.where,
        place=backdrop.name,
    )


def render(scene: Scene, *, width_px: int, height_px: int) -> Image.Image:
    """The scene as an RGB picture, its objects inside the central square. The same pixels every time."""
    rng = Random(scene.view)
    size = (2 * width_px, 2 * height_px)  # drawn at twice the size: Pillow's polygons have hard edges
    canvas = _draw_place(scene, rng, size)
    outlines = _place_objects(scene, rng, size)
    _paint_objects(scene, canvas, outlines)
    picture = canvas.reduce(2)
    light = Image.frombytes("L", (6, 6), rng.randbytes(36)).resize(picture.size, Image.Resampling.BICUBIC)
    return Image.blend(picture, light.convert("RGB"), 0.12)


def _draw_place(scene: Scene, rng: Random, size: tuple[int, int]) -> Image.Image:
    backdrop = _BACKDROPS[scene.place]
    horizon = size[1] * rng.uniform(0.45, 0.65)
    canvas = Image.new("RGB", size, backdrop.sky)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, horizon, *size), fill=backdrop.ground)
    backdrop.draw_marks(draw, rng, size, horizon, backdrop.marks)
    return canvas


def _place_objects(scene: Scene, rng: Random, size: tuple[int, int]) -> list[list[Point]]:
    """One outline an object, in pixels of the canvas."""
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    outlines = []
    for x, y in _CENTRES[scene.count]:
        centre_x = left + side * (x + rng.uniform(-0.04, 0.04))
        centre_y = top + side * (y + rng.uniform(-0.04, 0.04))
        radius, tilt = side * _RADII[scene.count] * rng.uniform(0.85, 1.1), rng.uniform(-0.25, 0.25)
        cos, sin = radius * math.cos(tilt), radius * math.sin(tilt)
        outlines.append(
            [(centre_x + u * cos - v * sin, centre_y + u * sin + v * cos) for u, v in _OUTLINES[scene.object]]
        )
    return outlines


def _paint_objects(scene: Scene, canvas: Image.Image, outlines: list[list[Point]]) -> None:
    side, rgb = min(canvas.size), _RGB[scene.colour]
    mask = Image.new("1", canvas.size)
    stencil = ImageDraw.Draw(mask)
    for outline in outlines:
        stencil.polygon(outline, fill=1)
    canvas.paste(_cloth(scene.texture, rgb, canvas.size), mask=mask)
    draw = ImageDraw.Draw(canvas)
    for outline in outlines:
        draw.line([*outline, *outline[:2]], fill=_contrast(rgb, 0.8), width=max(1, side // 60), joint="curve")


def _cloth(texture: str, rgb: Rgb, size: tuple[int, int]) -> Image.Image:
    """The stuff that the objects are cut from: their colour, and a second tone of it where it is not plain."""
    cloth = Image.new("RGB", size, rgb)
    if texture == "plain":
        return cloth
    draw, second, step = ImageDraw.Draw(cloth), _contrast(rgb, 0.45), min(size) / 9
    columns, rows = math.ceil(size[0] / step), math.ceil(size[1] / step)
    if texture == "striped":
        for i in range(rows):
            draw.rectangle((0, i * step, size[0], (i + 0.45) * step), fill=second)
        return cloth
    for i in range(columns):
        for j in range(rows):
            x, y = i * step, j * step
            if texture == "dotted":
                draw.ellipse((x, y, x + 0.6 * step, y + 0.6 * step), fill=second)
            elif (i + j) % 2:
                draw.rectangle((x, y, x + step, y + step), fill=second)
    return cloth


def _contrast(rgb: Rgb, share: float) -> Rgb:
    """The colour moved by `share` of the way to white, or to black where it is light already."""
    goal = 0 if 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2] > 140 else 255
    red, green, blue = (round(value + (goal - value) * share) for value in rgb)
    return red, green, blue
