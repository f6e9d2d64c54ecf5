"""Captions full of traps, and what pycocoevalcap 1.2 makes of them: frozen, in full precision (Java 17)."""

CANDIDATES = {
    "dog": "A dog isn't running on the grass.",
    "cat": "the cat the cat the cat",
    "cup": "3 1/2 cups of tea",
    "empty": "...",
    "far": "a man (in red) rides a horse on a very long beach at sunset with two dogs",
    "same": "Two birds sit on a wire.",
}
REFERENCES = {
    "dog": ["A dog is not running on grass", "The dog isn't running.", "dogs run"],
    "cat": ["the cat sits on the mat", "a cat"],
    "cup": ["3 1/2 cups", "three and a half cups of tea", "tea!"],
    "empty": ["a grey sky", "..."],
    "far": ["a man rides a horse", "a person in red on a horse at the beach"],
    "same": ["two birds sit on a wire", "birds"],
}
OF_SET = {
    "bleu_1": 0.7272727272561984,
    "bleu_2": 0.6107048165376899,
    "bleu_3": 0.47869760847772896,
    "bleu_4": 0.3507207342642161,
    "rouge_l": 0.7865348924402271,
    "cider_d": 2.0519904077883506,
}
PER_IMAGE = {  # in the order of OF_SET
    "dog": [
        0.9999999998750002,
        0.8451542546153265,
        0.7094917058824284,
        0.5169731538751628,
        0.8097345132743362,
        2.833147352508774,
    ],
    "cat": [0.4999999998333335, 0.3162277659061584, 2.924017737124485e-06, 9.55442791818209e-09, 0.5, 0.79138419730975],
    "cup": [
        0.9999999998000002,
        0.9999999997750002,
        0.8735804645081976,
        0.00013512001543735248,
        0.8798076923076923,
        2.878697813602014,
    ],
    "empty": [0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    "far": [
        0.5263157894459835,
        0.38235955643025316,
        0.20487941509677102,
        2.70765762660009e-05,
        0.5296671490593343,
        0.3698581492424063,
    ],
    "same": [
        0.9999999996666668,
        0.9999999996500001,
        0.999999999627778,
        0.9999999995958335,
        1.0,
        5.438854934067159,
    ],
}
METEOR = 0.4321399792641468  # of the set
