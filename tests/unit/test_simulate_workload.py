"""Jobs that are made up, and jobs from a file."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.simulate.jobs_file import JobsFileError, read_jobs
from extender.simulate.workload import (
    MOST_BLOCKS,
    Arrivals,
    BlockDrawer,
    DataSets,
    Distribution,
    Job,
    Traffic,
    make_jobs,
)

HOUR = 3600


def read(text: str | bytes) -> list[Job]:
    content = text if isinstance(text, bytes) else text.encode()
    return read_jobs(content, DataSets(reads=3), Random(1), source="jobs.csv")


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(JobsFileError) as caught:
        read(text)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("traffic", Traffic)
@pytest.mark.parametrize("hours", [6, 24, 60])
def test_as_many_jobs_come_as_were_asked_for(traffic: Traffic, hours: int) -> None:
    """Whatever the shape, and where the period ends in it: the expected number, in order, within the period."""
    jobs = make_jobs(Arrivals(traffic=traffic, jobs=4000, period=timedelta(hours=hours)), DataSets(), Random(1))
    assert len(jobs) == pytest.approx(4000, rel=0.06)
    assert all(0 <= first.arrives <= second.arrives < hours * HOUR for first, second in pairwise(jobs))
    assert sum(job.lasts for job in jobs) / len(jobs) == pytest.approx(300, rel=0.08)


def test_daily_traffic_peaks_at_noon_and_bursts_open_each_hour() -> None:
    """Swing 0.7: the hours around noon have over three times as many as those around midnight."""
    daily = Counter(int(job.arrives // HOUR) for job in make_jobs(Arrivals(), DataSets(reads=0), Random(1)))
    assert 3 < (daily[11] + daily[12]) / (daily[0] + daily[23]) < 8
    bursts = make_jobs(Arrivals(traffic=Traffic.BURSTS, burst_factor=4), DataSets(reads=0), Random(1))
    inside = sum(job.arrives % HOUR < 1200 for job in bursts)
    assert inside / (len(bursts) - inside) == pytest.approx(4 * 20 / 40, rel=0.1)


def test_popular_keys_have_more_jobs_and_blocks_of_their_own() -> None:
    """Zipf: the first key has about twice as many jobs as the second; no block belongs to two keys."""
    jobs = make_jobs(Arrivals(), DataSets(keys=12), Random(1))
    counts = Counter(job.key for job in jobs)
    assert counts["key-01"] / counts["key-02"] == pytest.approx(2, rel=0.15)
    assert len(counts) == 12
    owners = {(block, job.key) for job in jobs for block in job.blocks}
    assert len(owners) == len({block for block, _ in owners}) <= 12 * DataSets().blocks
    assert all(len(set(job.blocks)) == len(job.blocks) <= DataSets().reads for job in jobs)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1), st.integers(1, 30), st.integers())
def test_each_key_has_as_many_blocks_of_its_own_as_it_is_large(sizes: dict[str, int], reads: int, seed: int) -> None:
    """A job reads some of its key's blocks, each once, in proportion to the size; all of them where it draws as many as
    there are. No key has one of another."""
    drawer = BlockDrawer(DataSets(blocks=10, reads=reads), Random(seed), sizes)
    owns: dict[str, set[int]] = {key: set(drawer.draw(key, 40)) for key in sizes}
    assert {key: len(own) for key, own in owns.items()} == sizes
    assert len(set().union(*owns.values())) == sum(sizes.values())
    for key, own in owns.items():
        drawn = list(drawer.draw(key))
        assert set(drawn) <= own
        assert 1 <= len(drawn) == len(set(drawn)) <= max(1, round(reads * len(own) / 10))
        assert reads < 10 or set(drawn) == own


@pytest.mark.parametrize(("distribution", "half"), [("equal", 1.0), ("exponential", 0.693), ("heavy", 0.325)])
def test_sizes_and_durations_have_the_mean_that_was_asked_for(distribution: str, half: float) -> None:
    """And half of them are smaller than so much of it."""
    arrivals, data = Arrivals(jobs=20_000, durations=Distribution(distribution)), DataSets(reads=0)
    lasts = [job.lasts for job in make_jobs(arrivals, data, Random(1))]
    drawer = BlockDrawer(DataSets(blocks=300, sizes=Distribution(distribution)), Random(1))
    sizes = [len(drawer.draw(f"key-{number}", MOST_BLOCKS)) for number in range(20_000)]
    for values in lasts, sizes:
        assert sum(values) / len(values) == pytest.approx(300, rel=0.1)
        assert median(values) / 300 == pytest.approx(half, rel=0.05)


def test_a_key_is_never_larger_than_may_be_asked_for() -> None:
    """What is drawn from a long tail has an end: its blocks are numbered one by one."""
    drawer = BlockDrawer(DataSets(blocks=MOST_BLOCKS, sizes=Distribution.HEAVY, reads=0), Random(1))
    assert max(len(drawer.draw(f"key-{number}", MOST_BLOCKS)) for number in range(20)) == MOST_BLOCKS


def test_the_same_seed_is_the_same_jobs() -> None:
    """Rules are compared on the same jobs, and a picture can be made again."""
    assert make_jobs(Arrivals(jobs=300), DataSets(), Random(7)) == make_jobs(Arrivals(jobs=300), DataSets(), Random(7))


def test_a_file_is_read_in_order_of_arrival_from_zero() -> None:
    """Rows in any order, columns in any order, other columns ignored, with times or with seconds."""
    jobs = read(
        "key,pod,duration,arrives\nb,x,5m,2026-11-24T10:01:00+01:00\n\na,y,2.5,2026-11-24T09:00:00Z\n,z,0,2026-11-24T09:00:30Z\n"
    )
    assert [(job.arrives, job.lasts, job.key) for job in jobs] == [(0, 2.5, "a"), (30, 0, ""), (60, 300, "b")]
    assert [len(job.blocks) for job in jobs][1] == 0
    assert all(1 <= len(job.blocks) <= 3 for job in jobs if job.key)
    given = read("arrives,duration,key,reads\n100,1,a,0\n90,1,a,7\n91,1,a,\n".encode("utf-8-sig"))
    assert [job.arrives for job in given] == [0, 1, 10]
    assert [len(job.blocks) > 0 for job in given] == [True, True, False]


def test_a_file_says_how_large_keys_are() -> None:
    """In any row of a key; others have the usual size. A job draws its share of them, or as many as its row says."""
    jobs = read("arrives,duration,key,blocks,reads\n0,1,a,,\n1,1,b,4,9\n2,1,a,50000,\n3,1,a,,1\n4,1,c,,\n")
    assert [len(job.blocks) for job in jobs[1:4:2]] == [4, 1]
    assert 300 < len(jobs[0].blocks) <= 1500
    assert 300 < len(jobs[2].blocks) <= 1500
    assert 1 <= len(jobs[4].blocks) <= 3


def test_two_sizes_of_one_key_are_a_mistake() -> None:
    """Whoever exports them means something else by the column."""
    assert mistakes("arrives,duration,key,blocks\n0,1,a,4000\n1,1,a,5\n2,1,b,0\n3,1,a,4000\n") == [
        "jobs.csv:4: blocks: must be a whole number from 1 to 1,000,000 (got '0')",
        "jobs.csv:3: blocks: must be 4,000, as in another row of its key (got '5')",
    ]


def test_every_bad_row_is_told_with_its_line() -> None:
    """All mistakes at once: file, line, column, what to write, and what was there."""
    told = mistakes(
        "arrives,duration,key,reads\nyesterday,5m,a,\n0,5x,a,2.5\n1,-3,a,\n2,1\n2026-11-24T09:00:00,1,a,\n3,nan,a,\n"
    )
    assert told == [
        "jobs.csv:2: arrives: must be a time such as 2026-11-24T09:30:00Z, or seconds (got 'yesterday')",
        "jobs.csv:3: duration: must be seconds, or a duration such as 5m (got '5x')",
        "jobs.csv:3: reads: must be a whole number from 0 to 100,000 (got '2.5')",
        "jobs.csv:4: duration: must not be negative (got '-3')",
        "jobs.csv:5: has 2 values, the header has 4",
        "jobs.csv:6: arrives: must be a time with its zone, such as 2026-11-24T09:30:00Z (got '2026-11-24T09:00:00')",
        "jobs.csv:7: duration: must be seconds, or a duration such as 5m (got 'nan')",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "jobs.csv: it is empty; begin with a header: arrives,duration,key,blocks,reads"),
        (b"\n \n", "jobs.csv: it is empty; begin with a header: arrives,duration,key,blocks,reads"),
        (b"arrives,duration,key\n", "jobs.csv: there is no job in it, only a header"),
        (b"start,duration,tenant\n", "jobs.csv:1: no column arrives, key; the header must name arrives, duration, key"),
        (b"arrives,duration,key,key\n", "jobs.csv:1: column key is there twice"),
        (b"arrives,duration,key\n1,1,\xff\n", "jobs.csv:2: it is not UTF-8; export it as UTF-8"),
        (b'arrives,duration,key\n1,1,"a\n', "jobs.csv:2: it is not CSV: unexpected end of data"),
        (
            b"arrives,duration,key\n1,1,a\n2026-11-24T09:00:00Z,1,a\n",
            "jobs.csv:3: arrives: write times or seconds in all rows, not both",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(content: bytes, told: str) -> None:
    """No traceback, whatever it holds."""
    assert mistakes(content) == [told]


def test_many_mistakes_are_cut_short() -> None:
    """A wrong column is a mistake in each row: twenty are enough."""
    told = mistakes("arrives,duration,key\n" + "x,1,a\n" * 1500)
    assert len(told) == 21
    assert told[-1] == "and 1,480 more"
