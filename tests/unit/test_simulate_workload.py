"""Jobs that are made up, and jobs from a file."""

from collections import Counter
from datetime import timedelta
from itertools import pairwise
from random import Random

import pytest

from extender.simulate.jobs_file import JobsFileError, read_jobs
from extender.simulate.workload import Arrivals, BlockDrawer, DataSets, Job, Traffic, make_jobs

HOUR = 3600


def drawer() -> BlockDrawer:
    return BlockDrawer(DataSets(), Random(1))


def read(text: str | bytes) -> list[Job]:
    content = text if isinstance(text, bytes) else text.encode()
    return read_jobs(content, drawer(), source="jobs.csv", default_reads=3)


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
        (b"", "jobs.csv: it is empty; begin with a header: arrives,duration,key,reads"),
        (b"\n \n", "jobs.csv: it is empty; begin with a header: arrives,duration,key,reads"),
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
