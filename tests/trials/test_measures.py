"""The bound that a rehearsal is held against does not grow with what the rehearsal wastes."""

from trials.rehearsal.measures import calls_of_a_shard


def test_the_calls_of_an_undisturbed_shard_are_those_of_the_protocol() -> None:
    committing = 4  # is it done, data, at times rejects, record; twice, for rows and for marked
    reading = 4  # marked: its input's record, the size of the table twice, and the table
    assert 2 * (committing - 1) + reading < calls_of_a_shard(30) < 2 * committing + reading
