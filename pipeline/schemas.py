"""The columns of every parquet file, declared once. Units are in the comments; docs/formats.md is printed from here."""

import pyarrow as pa

from pipeline.reasons import Reason

REJECTS = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # pipeline.reasons.Reason
        pa.field("detail", pa.string(), nullable=False),  # for a person: the status, the score, the size found
    ]
)

URLS = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),  # {source}-{row:010d}
        pa.field("source", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),  # where one image has several captions
        pa.field("url", pa.string()),  # null: a local picture
        pa.field("caption", pa.string(), nullable=False),  # as found
        pa.field("nsfw", pa.float32()),  # the source's own score, 0…1
        pa.field("watermark", pa.float32()),  # the source's own score, 0…1
        pa.field("local_path", pa.string()),  # a picture file, or the tar that holds it
        pa.field("local_offset", pa.int64()),  # bytes; null: the whole file
        pa.field("local_bytes", pa.int64()),
    ]
)

DOWNLOADED = pa.schema(
    [
        # img2dataset's columns: one row an input row, failed ones too
        pa.field("key", pa.string(), nullable=False),  # = pair_id
        pa.field("url", pa.string()),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # success, failed_to_download, failed_to_resize
        pa.field("error_message", pa.string()),
        pa.field("width", pa.int32()),  # px, as stored
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),  # px, as fetched (after EXIF orientation)
        pa.field("original_height", pa.int32()),
        pa.field("sha256", pa.string()),  # of the bytes as fetched
        # ours
        pa.field("stored_sha256", pa.string()),  # of the JPEG in the tar
        pa.field("reason", pa.string()),  # pipeline.reasons.Reason; null: success
        pa.field("http_status", pa.int32()),
        pa.field("bytes", pa.int64()),  # as fetched
        pa.field("phash", pa.uint64()),
        pa.field("fetch_ms", pa.float32()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("nsfw", pa.float32()),
        pa.field("watermark", pa.float32()),
        pa.field("image_offset", pa.int64()),  # of the JPEG's first byte in the tar
        pa.field("image_bytes", pa.int64()),  # of the JPEG in the tar
    ]
)

EMBEDDED = pa.schema(
    [
        # one row a pair whose picture could be read; row-aligned with img_emb and text_emb
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),  # mended
        pa.field("clip_score", pa.float32(), nullable=False),  # cosine, −1…1
    ]
)

PAIRS = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("caption", pa.string(), nullable=False),  # mended
        pa.field("width", pa.int32(), nullable=False),  # px, as stored
        pa.field("height", pa.int32(), nullable=False),
        pa.field("clip_score", pa.float32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("stored_sha256", pa.string(), nullable=False),
        pa.field("phash", pa.uint64(), nullable=False),
        # where the picture lies: the run (its number in filter.inputs), its download shard, and the bytes in that tar
        pa.field("input", pa.int32(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)

JUDGED = pa.schema([*list(PAIRS)[1:], pa.field("embedded_row", pa.int32(), nullable=False)])
"""A kept pair before it has a row id, and its row in the embed shard's matrices."""

EVALUATION_PICTURES = pa.schema(
    [
        # one row a picture of an evaluation set; row-aligned with img_emb
        pa.field("name", pa.string(), nullable=False),  # below the set's folder, or as its parquet says
        pa.field("sha256", pa.string()),  # of the file; null: the set is a parquet
        pa.field("phash", pa.uint64(), nullable=False),
    ]
)

EVALUATION_HITS = pa.schema(
    [
        # one row a pair and evaluation set of which it shows a picture; of several the nearest
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("evaluation_set", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),  # of the picture
        pa.field("bits", pa.int32(), nullable=False),  # in which the perceptual hashes differ
        pa.field("cosine", pa.float64(), nullable=False),  # of the image embeddings, exact
    ]
)

RECALL = pa.schema(
    [
        pa.field("direction", pa.string(), nullable=False),  # image → image, or text → image
        pa.field("k", pa.int32(), nullable=False),
        pa.field("nprobe", pa.int32(), nullable=False),
        pa.field("depth", pa.int32()),  # vectors re-ranked; null: by the codes alone
        pa.field("recall", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),  # 95 % interval of recall
        pa.field("high", pa.float64(), nullable=False),
        pa.field("coverage", pa.float64(), nullable=False),  # exact neighbours that lie in the probed lists
        pa.field("codes_scanned", pa.float64(), nullable=False),  # a query, on average
        pa.field("cost_us", pa.float64(), nullable=False),  # a query, modelled
    ]
)

ENCODER_SCORES = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),  # text_to_image, image_to_text, classification
        pa.field("metric", pa.string(), nullable=False),  # recall, accuracy, mean_class_accuracy
        pa.field("at", pa.int32(), nullable=False),  # the right one is among the first so many; a tie is a miss
        pa.field("value", pa.float64()),  # share of the queries, 0…1; null: not computed
        pa.field("low", pa.float64()),  # 95 % interval of value
        pa.field("high", pa.float64()),
        pa.field("queries", pa.int64(), nullable=False),
        pa.field("candidates", pa.int64(), nullable=False),  # pictures, captions or classes that were ranked
        pa.field("note", pa.string(), nullable=False),  # why it was not computed, or is not of the whole set
    ]
)

NEIGHBOR_KEYS = pa.schema(
    [
        # what the leakage rules compare: 64-bit hashes, equal where the values are (0: there is none)
        pa.field("same_pair", pa.uint64(), nullable=False),  # pair_id
        pa.field("same_image_id", pa.uint64(), nullable=False),  # source and image_id
        pa.field("same_sha256", pa.uint64(), nullable=False),  # stored_sha256
        pa.field("same_phash", pa.uint64(), nullable=False),  # the perceptual hash itself
        pa.field("same_caption", pa.uint64(), nullable=False),  # normalised, or raw where that leaves nothing
        # what is told of a neighbour
        pa.field("pair_id", pa.large_string(), nullable=False),
        pa.field("caption", pa.large_string(), nullable=False),  # mended
    ]
)

INTERLEAVE_KEYS = pa.schema(
    [
        *NEIGHBOR_KEYS,
        pa.field("source", pa.string(), nullable=False),
        # where the picture lies, as in PAIRS
        pa.field("input", pa.int32(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)

NEIGHBOR_LIST = pa.list_(
    pa.struct(
        [
            pa.field("database", pa.int32(), nullable=False),  # its place in the plan's `databases`
            pa.field("row_id", pa.int64(), nullable=False),  # in the database: first_id of its corpus + row
            pa.field("pair_id", pa.string(), nullable=False),
            pa.field("similarity", pa.float32(), nullable=False),  # cosine, −1…1
            pa.field("caption", pa.string(), nullable=False),  # mended
        ]
    )
)
"""By similarity (largest first), then database, then row_id; none breaks a leakage rule."""

NEIGHBORS = pa.schema(
    [
        # one file a corpus shard, row-aligned with its metadata
        pa.field("pair_id", pa.string(), nullable=False),  # the query
        pa.field("neighbors", NEIGHBOR_LIST, nullable=False),
        # candidates ranked before the k-th kept one, each counted under the first rule that it breaks
        pa.field(
            "removed",
            pa.struct(
                [
                    pa.field(rule, pa.int32(), nullable=False)
                    for rule in ("pair", "image_id", "sha256", "phash", "caption")
                ]
            ),
            nullable=False,
        ),
        pa.field("shortfall", pa.int32(), nullable=False),  # k less the neighbours kept
    ]
)

BAND_SIZES = pa.schema(
    [
        # one row a query of the probe: how many other pairs' images lie in the band, by each reading of a distance
        pa.field("row_id", pa.int64(), nullable=False),  # counting through the corpora
        pa.field("l2", pa.int64(), nullable=False),
        pa.field("l2_squared", pa.int64(), nullable=False),
        pa.field("cosine", pa.int64(), nullable=False),
        pa.field("found", pa.int32(), nullable=False),  # supports; fewer than wanted: starved
    ]
)

COSINES = pa.schema(
    [
        # of the images of the probe's queries with all other pairs' images
        pa.field("cosine", pa.float64(), nullable=False),  # lower edge of a bin
        pa.field("pairs", pa.int64(), nullable=False),  # of all queries
        pa.field("squares", pa.int64(), nullable=False),  # the sum of the squares of each query's number, for intervals
    ]
)

SUPPORTS = pa.schema(
    [
        # row ids count through the corpora; supports by caption cosine (largest first), then row
        pa.field("row_id", pa.int64(), nullable=False),  # the query
        pa.field("supports", pa.list_(pa.int64()), nullable=False),
        pa.field("image_cosines", pa.list_(pa.float64()), nullable=False),  # exact
        pa.field("caption_cosines", pa.list_(pa.float64()), nullable=False),  # exact
    ]
)

SAMPLES = pa.schema(
    [
        # one row a sample; supports and what is told of them by caption similarity (largest first), then row
        pa.field("pair_id", pa.string(), nullable=False),  # the query
        pa.field("supports", pa.list_(pa.string()), nullable=False),
        pa.field("distances", pa.list_(pa.float32()), nullable=False),  # of images, as interleave.metric reads them
        pa.field("caption_similarities", pa.list_(pa.float32()), nullable=False),  # cosine, −1…1
        pa.field("order", pa.list_(pa.int32()), nullable=False),  # the supports' places, as they stand in the sample
        # all pairs in sample order: the supports, the query last
        pa.field(
            "pairs",
            pa.list_(
                pa.struct(
                    [
                        pa.field("corpus", pa.int32(), nullable=False),  # its place in the plan's `corpora`
                        pa.field("row_id", pa.int64(), nullable=False),  # in that corpus
                        pa.field("pair_id", pa.string(), nullable=False),
                        pa.field("caption", pa.string(), nullable=False),
                        # where the picture lies, as in PAIRS
                        pa.field("input", pa.int32(), nullable=False),
                        pa.field("shard", pa.string(), nullable=False),
                        pa.field("offset", pa.int64(), nullable=False),
                        pa.field("bytes", pa.int64(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
        # of each pair in sample order, those of its stored neighbours that break no rule against any pair of the sample
        pa.field("neighbors", pa.list_(NEIGHBOR_LIST)),  # null: interleave.neighbors is null
    ]
)

FEWSHOT_KEYS = pa.schema([*INTERLEAVE_KEYS, pa.field("image_id", pa.string())])

FEWSHOT = pa.schema(
    [
        # one row a test picture, one table a number of shots
        pa.field("pair_id", pa.string(), nullable=False),  # the query: the picture's first row
        pa.field("image_id", pa.string()),  # the query's
        pa.field("query", SAMPLES.field("pairs").type.value_type, nullable=False),  # corpus: as in samples
        # all pairs that show the query's picture, itself first
        pa.field(
            "references",
            pa.list_(
                pa.struct(
                    [
                        pa.field("pair_id", pa.string(), nullable=False),
                        pa.field("caption", pa.string(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field("supports", SAMPLES.field("pairs").type, nullable=False),  # in prompt order
        pa.field("shots", pa.int32(), nullable=False),  # as many were asked for; a starved query has fewer supports
        pa.field("selection", pa.string(), nullable=False),  # random, rices or paper
        pa.field("leaks", pa.bool_(), nullable=False),  # True: chosen by the query's own caption
    ]
)

BAND = pa.schema(
    [
        # what the probe saw of the band: one row a reading of a distance
        pa.field("reading", pa.string(), nullable=False),  # l2, l2_squared, cosine
        pa.field("mined", pa.bool_(), nullable=False),  # it is interleave.metric
        pa.field("lo", pa.float64(), nullable=False),  # the bounds, as this reading takes them
        pa.field("hi", pa.float64(), nullable=False),
        pa.field("lowest_cosine", pa.float64(), nullable=False),  # of two images, what the bounds come to
        pa.field("highest_cosine", pa.float64(), nullable=False),
        pa.field("pairs", pa.float64(), nullable=False),  # in the band of a query, on average
        pa.field("low", pa.float64(), nullable=False),  # 95 % interval of pairs
        pa.field("high", pa.float64(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),  # of all pairs
        pa.field("p5", pa.float64(), nullable=False),  # 5 % of the queries have at most so many pairs in their band
        pa.field("median", pa.float64(), nullable=False),
        pa.field("p95", pa.float64(), nullable=False),
    ]
)

FIGURES = pa.schema(
    [
        # what is told of all samples
        pa.field("figure", pa.string(), nullable=False),
        pa.field("source", pa.string()),  # whose queries are counted; null: those of all
        pa.field("value", pa.float64()),  # null: there was nothing to count
        pa.field("low", pa.float64()),  # 95 % interval of an estimate; null: counted over the whole run
        pa.field("high", pa.float64()),
    ]
)

SUPPORT_HISTOGRAMS = pa.schema(
    [
        pa.field("measure", pa.string(), nullable=False),  # caption_similarity (cosine) or distance (of images)
        pa.field("rank", pa.int32(), nullable=False),  # of the support by caption similarity: 1 …
        pa.field("edge", pa.float64(), nullable=False),  # lower edge of a bin
        pa.field("supports", pa.int64(), nullable=False),
    ]
)

SUPPORT_USES = pa.schema(
    [
        pa.field("samples", pa.int64(), nullable=False),  # in so many samples
        pa.field("pairs", pa.int64(), nullable=False),  # so many pairs are a support
    ]
)

HUBS = pa.schema(
    [
        # the pairs that are a support most often
        pa.field("row_id", pa.int64(), nullable=False),  # counting through the corpora
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),  # in so many
    ]
)

PICTURES = pa.schema(
    [
        # one row a picture that was named; a row group is a shard of captions
        pa.field("name", pa.string(), nullable=False),  # path or url as given, or FILE#ROW of a parquet
        pa.field("at", pa.string(), nullable=False),  # path or url
        pa.field("row", pa.int64()),  # of a parquet of pictures that lies there; null: the file is the picture
    ]
)

CAPTIONS = pa.schema(
    [
        pa.field("picture", pa.string(), nullable=False),  # as named
        pa.field("caption", pa.string()),  # null: there is none
        pa.field("error", pa.string()),  # why there is none; a run's are among its rejects
        # what the model was shown, nearest first
        pa.field(
            "neighbors",
            pa.list_(
                pa.struct(
                    [
                        pa.field("row_id", pa.int64(), nullable=False),  # in the index
                        pa.field("pair_id", pa.string(), nullable=False),
                        pa.field("similarity", pa.float32(), nullable=False),  # cosine, −1…1
                        pa.field("caption", pa.string(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field("removed", pa.int32(), nullable=False),  # hits that show the picture itself
        # its share of its batch's; null in a run, whose statistics have them
        pa.field("seconds", pa.struct([pa.field(what, pa.float32()) for what in ("embed", "retrieve", "generate")])),
    ]
)

STATS = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("attempt", pa.string(), nullable=False),
        pa.field("rows_in", pa.int64(), nullable=False),
        pa.field("rows_out", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),  # of the data files
        pa.field("host", pa.string(), nullable=False),
        *[pa.field(reason.value, pa.int64(), nullable=False) for reason in Reason],  # rejects
        pa.field("metrics", pa.map_(pa.string(), pa.float64()), nullable=False),
        # below the stage's folder, rejects too
        pa.field("files", pa.list_(pa.struct({"path": pa.string(), "bytes": pa.int64()})), nullable=False),
    ]
)

ANSWER_NEIGHBOR = pa.struct(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),  # cosine, −1…1
        pa.field("caption", pa.string(), nullable=False),
    ]
)

MATCHES = pa.schema(
    [
        # one row a picture of an evaluation set and a pair that shows it
        pa.field("pair_id", pa.string(), nullable=False),  # of the set: the picture's first row
        pa.field("corpus", pa.string(), nullable=False),  # the root that holds the pair
        pa.field("matched", pa.string(), nullable=False),  # the pair
        pa.field("rule", pa.string(), nullable=False),  # image_id, sha256 or phash
        pa.field("cosine", pa.float32()),  # of rule phash; null: the two corpora's embeddings do not compare
    ]
)

ANSWERS = pa.schema(
    [
        # one row a question and a number of new tokens; a shard is a block of questions asked in one way
        pa.field("model", pa.string(), nullable=False),  # as the recipe calls it
        pa.field("database", pa.string(), nullable=False),  # likewise
        pa.field("shots", pa.int32(), nullable=False),  # examples with pictures that were asked for
        pa.field("examples", pa.string(), nullable=False),  # none, text alone, rices, random or paper (leaks)
        pa.field("k", pa.int32(), nullable=False),  # neighbours that were asked for, of every picture
        pa.field("new_tokens", pa.int32(), nullable=False),  # at most; 0: the answer is a choice
        pa.field("question", pa.string(), nullable=False),  # of captions the pair_id
        pa.field("pair_id", pa.string(), nullable=False),  # of the picture's first row
        pa.field("image_id", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("asked", pa.string(), nullable=False),  # what stands behind the picture
        pa.field("references", pa.list_(pa.string()), nullable=False),  # true answers
        pa.field("answer", pa.string(), nullable=False),
        pa.field("shown", pa.int32(), nullable=False),  # examples that had room in front, those with text alone too
        pa.field("row_id", pa.int64(), nullable=False),  # of the picture, in the set's corpus
        pa.field("neighbors", pa.list_(ANSWER_NEIGHBOR), nullable=False),  # of the picture, nearest first
        pa.field("removed", pa.int32(), nullable=False),  # hits of its search that show a picture of the prompt
        pa.field("clip_score", pa.float32()),  # of captions: cosine of picture and answer, by the set's own encoder
    ]
)

SCORES = pa.schema(
    [
        # one row a figure
        pa.field("model", pa.string(), nullable=False),
        pa.field("database", pa.string(), nullable=False),
        pa.field("shots", pa.int32(), nullable=False),
        pa.field("examples", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("new_tokens", pa.int32(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),  # empty: all
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64()),  # null: not computed, and `note` says why
        pa.field("low", pa.float64()),  # 95 % interval, by bootstrap over the pictures; null: none
        pa.field("high", pa.float64()),
        pa.field("questions", pa.int64(), nullable=False),
        pa.field("note", pa.string(), nullable=False),  # why it is no score of all questions, with all examples
    ]
)

EVERY_SCHEMA = {
    "urls": URLS,
    "downloaded": DOWNLOADED,
    "embedded": EMBEDDED,
    "judged": JUDGED,
    "pairs": PAIRS,
    "evaluation_pictures": EVALUATION_PICTURES,
    "evaluation_hits": EVALUATION_HITS,
    "recall": RECALL,
    "encoder_scores": ENCODER_SCORES,
    "neighbor_keys": NEIGHBOR_KEYS,
    "neighbors": NEIGHBORS,
    "band_sizes": BAND_SIZES,
    "cosines": COSINES,
    "interleave_keys": INTERLEAVE_KEYS,
    "supports": SUPPORTS,
    "samples": SAMPLES,
    "fewshot_keys": FEWSHOT_KEYS,
    "fewshot": FEWSHOT,
    "band": BAND,
    "figures": FIGURES,
    "support_histograms": SUPPORT_HISTOGRAMS,
    "support_uses": SUPPORT_USES,
    "hubs": HUBS,
    "pictures": PICTURES,
    "captions": CAPTIONS,
    "matches": MATCHES,
    "answers": ANSWERS,
    "scores": SCORES,
    "rejects": REJECTS,
    "stats": STATS,
}
