"""Measures the dashboard in Chromium: what is loaded, how soon it can be used, and how smoothly it moves.

  .venv/bin/python -m bench.page [--rounds 5] [--agents 100000] [--points 10000] [--live-hours 1] [--speed 100]
                                 [--only PART,PART] [--tiny] [--results FOLDER]

load     bytes of the first load as they are sent, and the time until the fleet page can be used, with the
         processor slowed down to a quarter: its heading is there and no task of more than 50 ms is running
pan      ten series of 10,000 points in one chart, moved for three seconds: times between frames
list     100,000 agents, scrolled: frames in which a visible row was not there yet
memory   an hour of readings at 100 a second, sent in 36 s to a page that draws them: the heap after each tenth

Browser, platform and database share this machine. Needs Chromium and a built dashboard.
"""

import itertools
import json
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, sync_playwright

from bench.report import argument_parser, publish
from tests.many_agents import add_many
from tests.mqtt311 import Client311
from tests.serving import ADMIN, Served, new_data_folder, until

SLOW = 4  # times slower
SERIES = 10
WATCH_TASKS = """
window.__tasks = [];
new PerformanceObserver(list => {
  for (const task of list.getEntries()) window.__tasks.push(task.startTime + task.duration);
}).observe({type: 'longtask', buffered: true});
window.__shown = new Promise(resolve => {
  const look = () => document.querySelector('main h1') ? resolve(performance.now()) : requestAnimationFrame(look);
  look();
});
"""
FRAMES = """
([seconds, step]) => new Promise(resolve => {
  const times = [], gaps = [];
  const end = performance.now() + seconds * 1000;
  const move = new Function('at', step);
  let at = 0;
  const frame = now => {
    times.push(now);
    gaps.push(move(at++) ?? 0);
    if (now < end) requestAnimationFrame(frame);
    else resolve([times, gaps]);
  };
  requestAnimationFrame(frame);
})
"""
PAN = """
const over = document.querySelector('.u-over');
over.dispatchEvent(new WheelEvent('wheel', {deltaX: at % 120 < 60 ? 6 : -6, cancelable: true, bubbles: true}));
"""
SCROLL = """
scrollBy(0, PIXELS);
return [...document.querySelectorAll('.waiting')].filter(row => {
  const box = row.getBoundingClientRect();
  return box.bottom > 60 && box.top < innerHeight;
}).length;
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "Chromium is missing. On Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--enable-precise-memory-info", "--js-flags=--expose-gc"],
        )
        yield browser
        browser.close()


def log_in(context: BrowserContext, base: str) -> None:
    page = context.new_page()
    page.goto(f"{base}/login")
    page.get_by_label("E-mail address or user name").fill(ADMIN[0])
    page.get_by_label("Password").fill(ADMIN[1])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{base}/")
    page.close()


def first_load(context: BrowserContext, base: str, rounds: int) -> dict[str, Any]:
    """The bytes of the files of the page, and the seconds until it can be used, without a cache."""
    sizes: dict[str, int] = {}
    seconds: dict[str, list[float]] = {"full speed": [], "4 times slower": []}
    for round_ in range(2 * rounds):
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        is_slow = round_ % 2 == 1
        session.send("Emulation.setCPUThrottlingRate", {"rate": SLOW if is_slow else 1})
        sizes = _listen(session, base)
        page.add_init_script(WATCH_TASKS)
        page.goto(base, wait_until="commit")
        shown = page.evaluate("window.__shown")
        page.wait_for_timeout(1500)
        tasks = page.evaluate("window.__tasks")
        usable = max([shown, *tasks])
        seconds["4 times slower" if is_slow else "full speed"].append(usable / 1000)
        page.close()
    return {
        "kB": round(sum(sizes.values()) / 1000, 1),
        "files": len(sizes),
        "usable after s": {name: round(statistics.median(values), 2) for name, values in seconds.items()},
    }


def _listen(session: CDPSession, base: str) -> dict[str, int]:
    """Count the bytes of each file as it arrives; answers of the API are not files of the page."""
    urls: dict[str, str] = {}
    sizes: dict[str, int] = {}

    def requested(event: dict[str, Any]) -> None:
        urls[event["requestId"]] = event["request"]["url"]

    def loaded(event: dict[str, Any]) -> None:
        url = urls.get(event["requestId"], "")
        if url.startswith(base) and "/api/" not in url:
            sizes[url] = int(event["encodedDataLength"])

    session.on("Network.requestWillBeSent", requested)
    session.on("Network.loadingFinished", loaded)
    return sizes


def frames(page: Page, seconds: float, step: str) -> dict[str, Any]:
    """Do a step in each frame; milliseconds between frames, and how many steps returned a number above zero."""
    times, gaps = page.evaluate(FRAMES, [seconds, step])
    steps = sorted(b - a for a, b in itertools.pairwise(times))
    return {
        "frames": len(steps),
        "ms": {"median": round(statistics.median(steps), 1), "p95": round(steps[int(len(steps) * 0.95)], 1)},
        "frames with a gap": sum(gap > 0 for gap in gaps),
    }


def send(device: Client311, topic: str, readings: list[dict[str, Any]]) -> None:
    device.publish(f"{topic}/endpoints/bench", json.dumps(readings).encode())


def pan(context: BrowserContext, base: str, owner: httpx.Client, made: dict[str, str], points: int) -> Any:
    """Move ten lines; the readings of each series have times of their own, as those of different devices have."""
    end, span = datetime.now(UTC) - timedelta(minutes=1), 7000
    names = [f"pan{number}" for number in range(SERIES)]
    port = int(made["broker"].rpartition(":")[2])
    with Client311(port, made["username"], made["password"]) as device:
        for number, name in enumerate(names):
            for first in range(0, points, 500):
                readings = [
                    {
                        **{"metric": name, "value": number * 10 + (at * 7919 % 1000) / 150, "unit": "kW"},
                        "timestamp": (end - timedelta(seconds=span * at / points, microseconds=number)).isoformat(),
                    }
                    for at in range(first, min(points, first + 500))
                ]
                send(device, made["topic"], readings)
    wanted = SERIES * points
    until(lambda: owner.get("/ingestion/ledger").json()["readings"]["stored"] >= wanted, 120, "they are stored")
    page = context.new_page()
    start = (end - timedelta(seconds=span + 60)).isoformat()
    keys = "|".join(f"{made['uuid']}/{name}" for name in names)
    query = httpx.QueryParams({"series": keys, "from": start, "to": (end + timedelta(seconds=60)).isoformat()})
    page.goto(f"{base}/explore?{query}")
    page.get_by_text("every reading").wait_for()
    page.wait_for_timeout(1000)
    found = frames(page, 3 if points > 1000 else 0.5, PAN)
    page.close()
    del found["frames with a gap"]
    return {"points": wanted, **found}


def scroll(context: BrowserContext, base: str, owner: httpx.Client, agents: int, seconds: float) -> Any:
    """Scroll the list of agents at the speed of a reader and of a flung touchpad, then jump to its middle."""
    page = context.new_page()
    page.goto(f"{base}/agents")
    page.get_by_text("gateway-000001").first.wait_for()
    found: dict[str, Any] = {"agents": owner.get("/agents", params={"limit": 1}).json()["total"]}
    for name, pixels in (("25 px a frame", 25), ("100 px a frame", 100)):
        found[name] = frames(page, seconds, SCROLL.replace("PIXELS", str(pixels)))
    began = time.monotonic()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    page.get_by_text(f"gateway-{agents // 2:06d}"[:-2]).first.wait_for()
    found["to the middle ms"] = round((time.monotonic() - began) * 1000)
    page.close()
    return found


def memory(
    context: BrowserContext, base: str, owner: httpx.Client, made: dict[str, str], hours: float, speed: float
) -> Any:
    """Send readings of the last hour faster than they were measured, to a page that follows them."""
    pages = [context.new_page(), context.new_page()]
    names = [f"live{number}" for number in range(SERIES)]
    keys = "|".join(f"{made['uuid']}/{name}" for name in names)
    port = int(made["broker"].rpartition(":")[2])
    total, batch = int(hours * 3600 * 100), 100
    start = datetime.now(UTC) - timedelta(hours=hours)

    def readings(first: int) -> list[dict[str, Any]]:
        return [
            {
                **{"metric": names[at % SERIES], "value": at % 977 / 10, "unit": "A"},
                "timestamp": (start + timedelta(milliseconds=10 * at)).isoformat(),
            }
            for at in range(first, first + batch)
        ]

    heaps: list[list[float]] = [[], []]
    with Client311(port, made["username"], made["password"]) as device:
        send(device, made["topic"], readings(0))
        until(lambda: owner.get(f"/readings/{made['uuid']}/latest").json()["count"] >= SERIES, 30, "a reading")
        pages[0].goto(f"{base}/agents/{made['uuid']}")
        pages[1].goto(f"{base}/explore?{httpx.QueryParams({'series': keys, 'range': '1h'})}")
        pages[0].get_by_text("live0").first.wait_for()
        pages[1].wait_for_timeout(2000)
        sessions = [context.new_cdp_session(page) for page in pages]
        began = time.monotonic()
        for sent in range(batch, total, batch):
            send(device, made["topic"], readings(sent))
            time.sleep(max(0.0, began + sent / 100 / speed - time.monotonic()))
            if len(heaps[0]) < sent * 10 // total:
                for heap, session in zip(heaps, sessions, strict=True):
                    heap.append(_heap(session))
    is_live = [page.get_by_text("Live", exact=True).count() > 0 for page in pages]
    for page in pages:
        page.close()
    return {
        "readings": total,
        "in s": round(time.monotonic() - began, 1),
        "still live": all(is_live),
        "values page MB": heaps[0],
        "chart page MB": heaps[1],
    }


def _heap(session: CDPSession) -> float:
    """The bytes that the page's scripts hold, in MB, without what could be freed."""
    session.send("HeapProfiler.collectGarbage")
    return round(float(session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6, 1)


def main() -> None:
    """Run the bench."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--agents", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--live-hours", type=float, default=1)
    parser.add_argument("--speed", type=float, default=100, help="how much faster than measured; default: 100")
    parser.add_argument("--only", default="load,pan,list,memory")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that the bench works")
    args = parser.parse_args()
    if args.tiny:
        args.rounds, args.agents, args.points, args.live_hours = 1, 300, 100, 0.01
    figures: dict[str, Any] = {}
    with new_data_folder() as folder, chromium() as browser:
        server = Served(folder).start().ready()
        try:
            owner = server.login()
            base = f"http://127.0.0.1:{server.http_port}"
            agent = owner.post("/agents", json={"name": "bench"}).json()
            made = {**agent["mqtt"], "uuid": agent["agent"]["uuid"], "topic": agent["agent"]["topic"]}
            made["broker"] = f"127.0.0.1:{server.mqtt_port}"
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            log_in(context, base)
            if "load" in args.only:
                figures["load"] = first_load(context, base, args.rounds)
            if "pan" in args.only:
                figures["pan"] = pan(context, base, owner, made, args.points)
            if "memory" in args.only:
                figures["memory"] = memory(context, base, owner, made, args.live_hours, args.speed)
            if "list" in args.only:
                add_many(server, owner.get("/auth/me").json()["tenantId"], args.agents)
                figures["list"] = scroll(context, base, owner, args.agents, 0.5 if args.tiny else 10)
            context.close()
        finally:
            server.stop()
    publish("page", args.results, figures)


if __name__ == "__main__":
    main()
