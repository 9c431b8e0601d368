"""The dashboard in a real browser, over answers that are made up."""

from __future__ import annotations

import re

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from protos.messages import RouteReport
from router.edge.readiness import StoreState, WorkersState
from tests.router.dashboard.browser import Browser
from tests.router.dashboard.conftest import DESK, PHONE
from tests.router.dashboard.fake import HOSTILE, FakeAnswers, readiness, served

SIZES = pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
ARMS = ["champion", "challenger", "canary-2", "newcomer"]


def arm(name: str, cell: str = "") -> str:
    """The selector of an arm's row in the table, or of a cell there."""
    return f'#arms tr[data-key="{name}"]' + (f' td[data-label="{cell}"]' if cell else "")


# ------------------------------------------------------------------------------------------------ what is shown


def test_an_arm_is_told_in_numbers(page: Browser):
    told = page.text(arm("challenger"))
    for said in (
        *("challenger at 10.0.0.7:9000", "costs 0.004 a decision", "serving"),
        *("40.0 %", "4,000 decisions", "drawn now: 75.0 %"),
        *("0.560", "0.530 to 0.590", "3,900 rewards, 98.0 % of those due"),
        *("+0.057", "better", "+0.017 to +0.097", "before cost +0.060 (+0.020 to +0.100), e-value 10,000"),
        *("> 99.9 %", "p50", "≤ 1 ms", "p95", "≤ 500 ms", "p99", "off the scale", "12 UNAVAILABLE"),
    ):
        assert said in told
    assert "the champion itself" in page.text(arm("champion"))
    assert "INTERNAL" not in page.text(arm("champion"))  # there were none, but at another route
    for said in ("ejected", "errors: 5.1 % against 0.5 %", "−0.10", "worse", "−0.18 to −0.02"):
        assert said in page.text(arm("canary-2"))
    said = page.text("#arms")
    assert "Net lift over champion" in said
    assert "Means are of the decisions that each arm got, which differ; compare by lift. Net lift and P(best)" in said


def test_without_costs_a_lift_is_told_as_it_is(page: Browser, fake: FakeAnswers):
    told = fake.report.against_champion
    for field in "cost", "net", "on_investment":
        told.ClearField(field)
    for each in fake.report.arms:
        for field in "cost", "net_lift":
            each.ClearField(field)
        each.by_unit.ClearField("net_lift")
    page.hurry()
    page.reads("Lift over champion", "#arms")
    lift = page.text(arm("challenger", "Lift"))
    for said in "+0.060", "+0.020 to +0.100", "e-value 10,000, 3,900 decisions", "by unit: −0.06 to +0.18, e-value 1.4":
        assert said in lift
    for place in "#arms", "#value":
        assert "cost" not in page.text(place)
    assert "investment" not in page.text("#value")


def test_how_a_canary_ended_is_told_of_its_arm(page: Browser, fake: FakeAnswers):
    fake.report.arms[1].state = "rolled_back"
    fake.report.arms[2].state = "serving"
    fake.report.canary.outcome = "rolled_back"
    page.hurry()
    page.reads("rolled back", arm("challenger", "State"))
    assert page.text("#summary").count("canary rolled back") == 1
    assert "all arms serving" not in page.text("#summary")


def test_what_was_not_read_of_the_log_is_counted(page: Browser, fake: FakeAnswers):
    fake.report.log.gone, fake.report.log.other_arms = 1400, 75
    page.hurry()
    page.reads("10,000 decisions, all that are kept from", "#summary")
    assert "1,400 decisions" in page.text("#summary")
    assert "75 decisions, taken when the route had other arms" in page.text("#summary")


def test_a_route_is_told_at_a_glance(page: Browser):
    told = page.text("#summary")
    for said in (
        *("credit", "canary-2 ejected", "canary running", "thompson, floor 0.02", "5f0c2e77a1b04d19"),
        *("10,300", "9,900", "96.1 % of decisions", "Sample ratio", "as logged", "e-value 0.1, 10,000 decisions"),
        *("Canary challenger", "step 2 of 4", "at 40.0 %", "0.0022", "0 to 1", "10,000 decisions, all from"),
        "Units came back: go by those that count units.",
    ):
        assert said in told
    assert page.text("#health").split("\n") == [
        *("Server", "ready", "Store", "answers", "Learner lag", "20 ms", "Waiting", "3")
    ]
    assert "4 arms, 1 off, 1 not ready" in page.text("#routes")
    assert "nobody answers: 1 arm, 1 off" in page.text("#routes")
    assert "its model is not ready" in page.text(arm("newcomer"))
    value = page.text("#value")
    for said in (
        "0.524",
        "+0.024",
        "+0.004 to +0.044",
        "Gain of 9,700 decisions",
        "+233",
        "11.7",
        "+221",
        "+27 to +415",
        "1,889.7 %",
    ):
        assert said in value
    metric = page.text("#metrics")
    for said in ("pnl", "GBP, higher is better", "0.40", "0.25 to 0.55", "1,600.25", "4,000"):
        assert said in metric


def test_what_units_say_stands_beside_what_decisions_say(page: Browser):
    assert "by unit: 0.44 to 0.68, 1,500 units, design effect 16" in page.text(arm("challenger", "Mean reward"))
    assert "by unit: −0.06 to +0.18" in page.text(arm("challenger", "Lift"))
    assert "by unit: no interval yet, 60 units" in page.text(arm("canary-2", "Mean reward"))
    assert "6,000 units drew 10,000 times, one of them 212 times" in page.text("#arms")
    assert "by unit" not in page.text(arm("newcomer"))


def test_a_best_that_is_not_known_says_why(page: Browser, fake: FakeAnswers):
    assert "told from 20,000 draws from the posterior" in page.text("#arms")
    fake.report.best_by, fake.report.best_why = "", "There are 60 of them; it takes 100."
    page.hurry()
    page.reads("P(best) is not known. There are 60 of them; it takes 100.", "#arms")


def test_a_shadow_is_no_alarm(page: Browser, fake: FakeAnswers):
    newcomer = fake.report.arms[3]
    newcomer.state = "shadow"
    newcomer.shadow.CopyFrom(RouteReport.Shadow(compared=160, different=40, failed=3, dropped=2))
    page.hurry()
    told = page.reads("160 copies answered, 40 otherwise; 3 failed, 2 dropped", arm("newcomer"))
    assert "shadow" in told
    assert "not told yet" not in told
    assert "newcomer" not in page.text("#summary .badges")
    assert page.find_all(arm("newcomer") + " .badge.warn, " + arm("newcomer") + " .badge.bad") == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("rolled_back", "rolled back"),
        ("promoted", "promoted"),
        ("left_alone", "nothing is known after the last step"),
    ],
)
def test_a_canary_that_is_over_says_how_it_ended(page: Browser, fake: FakeAnswers, outcome: str, said: str):
    fake.report.canary.outcome = outcome
    page.hurry()
    assert ("step 2 of 4" in page.reads(said, "#summary .tiles")) == (outcome == "left_alone")


def test_moments_are_told_with_their_zone_and_in_utc_where_one_points(page: Browser):
    assert re.search(r"live, \d\d:\d\d:\d\d (UTC|GMT[+-]\d+)", page.text("#pulse"))
    title = page.find("#events time").get_attribute("title") or ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", title)


def test_bars_and_whiskers_have_the_lengths_of_their_numbers(page: Browser):
    assert page.number(arm("challenger", "Traffic") + " .part", "width") == 40.0
    assert page.number(arm("challenger", "Traffic") + " .mark", "x1") == 75.0
    assert page.number(arm("champion", "P(best)") + " .part", "width") == 0.04

    low, high = 0.3 - 0.0145, 0.59 + 0.0145  # the least and the greatest end, and a twentieth of air

    def value(name: str, part: str, end: str) -> float:
        return low + (high - low) * page.number(f"{arm(name, 'Mean reward')} .{part}", end) / 100

    for name, mean, least, most in (
        ("champion", 0.5, 0.48, 0.52),
        ("challenger", 0.56, 0.53, 0.59),
        ("canary-2", 0.4, 0.3, 0.5),
    ):
        assert value(name, "interval", "x1") == pytest.approx(least, abs=1e-4)
        assert value(name, "interval", "x2") == pytest.approx(most, abs=1e-4)
        assert value(name, "value", "x1") == pytest.approx(mean, abs=1e-4)
        assert value(name, "reference", "x1") == pytest.approx(0.5, abs=1e-4)  # the champion's
    zero = page.number(arm("challenger", "Lift") + " .reference", "x1")
    assert page.number(arm("challenger", "Lift") + " .interval", "x1") > zero
    assert page.number(arm("canary-2", "Lift") + " .interval", "x2") < zero
    assert page.find_all(arm("newcomer") + " .interval") == []


@pytest.mark.parametrize("report", ["full", "empty"])
def test_what_is_not_known_is_a_dash(page: Browser, fake: FakeAnswers, report: str):
    if report == "empty":
        fake.report = RouteReport(policy="Split()", champion="champion", arms=[RouteReport.Arm(name="champion")])
        fake.report.arms[0].mean.value = float("inf")
        page.hurry()
        page.until(lambda: "Split()" in page.text("#summary"))
    assert "–" in page.text("#arms")
    assert re.findall(r"NaN|Infinity|undefined|null|\[object", page.text()) == []
    assert re.findall(r"NaN|Infinity|undefined", page.run("return document.body.innerHTML")) == []


def test_traffic_is_drawn_from_the_decisions_taken_meanwhile(page: Browser, fake: FakeAnswers):
    assert "while this page is open" in page.text("#traffic")
    fake.report.arms[0].decisions += 30
    fake.report.arms[1].decisions += 90
    page.hurry()
    legend = page.reads("75.0 %", "#traffic .legend").split("\n")
    assert [line.strip() for line in legend] == ["champion 25.0 %", "challenger 75.0 %", "canary-2 0 %", "newcomer 0 %"]
    assert len(page.find_all("#traffic polygon.layer")) == len(ARMS)
    label = page.find("svg.traffic").get_attribute("aria-label")
    assert label == "Share of traffic: champion 25.0 %, challenger 75.0 %, canary-2 0 %, newcomer 0 %"
    top, bottom = 6, 174  # of the chart; the first arm lies on top
    ys = {float(point.split(",")[1]) for point in (page.find(".layer").get_attribute("points") or "").split()}
    assert ys == {top, top + (bottom - top) / 4}


def test_a_sample_ratio_mismatch_is_an_alarm(page: Browser, fake: FakeAnswers):
    assert "mismatch" not in page.text("#summary .badges")
    fake.report.mismatch[0].alarm = True
    fake.report.mismatch[0].log_e_value = 25.0
    page.hurry()
    page.reads("sample ratio mismatch", "#summary .badges")
    assert "e-value 10^11" in page.text("#summary")
    assert page.driver.title == "⚠ · credit · Croupier"


def test_events_are_told_with_their_numbers_the_newest_first(page: Browser, fake: FakeAnswers):
    first, second = page.text("#events li:first-child"), page.text("#events li:last-child")
    for said in ("ejected", "canary-2", "error rate", "0.051", "bound", "0.012", "never", "–"):
        assert said in first
    assert "reloaded" in second
    assert "the route" in second
    fake.events.events.add(id="3", time=fake.events.events[1].time + 1, kind="frozen", why="on my word")
    page.hurry()
    page.reads("on my word", "#events li:first-child")
    assert len(page.find_all("#events li")) == 3


def test_what_a_server_says_stays_a_text(page: Browser, fake: FakeAnswers):
    assert HOSTILE in page.text("#events")
    assert HOSTILE in page.text(arm("canary-2"))
    fake.refusal = HOSTILE
    page.find(f"{arm('champion')} button").click()
    say(page, who=HOSTILE, why=HOSTILE)
    page.reads(HOSTILE, "#switch-dialog")
    assert page.find_all("body script, main img, dialog img") == []
    assert page.driver.title == "credit · Croupier"
    with pytest.raises(Exception, match="TrustedHTML"):  # the browser forbids it as well
        page.run("document.body.innerHTML = arguments[0]", HOSTILE)
    page.heard()  # that it did, and the refusal of the switch


def test_another_route_is_shown_at_its_own_address(page: Browser, fake: FakeAnswers, address: str):
    page.find('#routes a[href="#route=fraud"]').click()
    assert page.reads("fraud", "#summary h2") == "fraud"
    assert page.find('#routes [aria-current="page"] .name').text == "fraud"
    page.driver.back()
    page.reads("credit", "#summary h2")
    assert f"http://{address}/dashboard" in page.driver.current_url


def test_a_decision_is_explained(page: Browser):
    page.find("#decision").send_keys("d-17" + Keys.ENTER)
    told = page.reads("the choice is the same", "#explanation")
    for said in (
        *("challenger answered", "0.750000", "its unit", "volatility > 0.30", "Context (1)", "reward", "drawn"),
        "5f0c2e77a1b04d19",
    ):
        assert said in told
    assert page.number("#explanation tr.chosen .part", "width") == 75.0
    page.find("#explanation summary").click()
    assert "0.31" in page.text("#explanation details")

    page.find("#decision").clear()
    page.find("#decision").send_keys("d-18?" + Keys.ENTER)
    page.reads("unknown decision 'd-18?'", "#explanation")
    assert "404" in "".join(page.complaints())


# --------------------------------------------------------------------------------------------- how it is shown


@SIZES
def test_it_fits_the_screen(page: Browser, fake: FakeAnswers, size: tuple[int, int]):
    """With names as long as they may be."""
    page.size(*size)
    long = "x" * 100
    fake.report.champion = fake.report.arms[0].name = fake.report.arms[0].metrics[0].name = long
    fake.report.arms[0].state = "off"
    page.hurry()
    page.reads(f"{long} off", "#summary")
    fake.report.arms[0].decisions += 10
    page.hurry()
    page.until(lambda: page.find_all("polygon.layer"))
    page.find("#decision").send_keys("d-17" + Keys.ENTER)
    page.reads("the choice is the same", "#explanation")
    assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    cut = page.run("""
        const seen = (element) => element.checkVisibility() && !element.closest(".skip, thead");
        return [...document.querySelectorAll("body *")].filter(seen).filter((element) => {
            const { left, right } = element.getBoundingClientRect();
            const inside = element.namespaceURI.endsWith("svg") || element.clientWidth === 0;
            return left < 0 || right > innerWidth || (!inside && element.scrollWidth > element.clientWidth + 1);
        }).map((element) => element.outerHTML.slice(0, 120));
    """)
    assert cut == []
    small = page.run("""
        return [...document.querySelectorAll("#arms td, #arms td *")]
            .map((element) => parseFloat(getComputedStyle(element).fontSize)).filter((size) => size < 8);
    """)
    assert small == []
    for name in ARMS[1:]:
        assert name in page.text(arm(name))
    tapped = page.run("""
        return [...document.querySelectorAll("button")].filter((button) => button.checkVisibility())
            .map((button) => button.getBoundingClientRect().height);
    """)
    assert min(tapped) >= (36 if size == PHONE else 24)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(page: Browser, fake: FakeAnswers, scheme: str):
    """By 4.5 to 1, the contrast that WCAG asks for at level AA."""
    page.scheme(scheme)
    fake.report.frozen = True
    fake.report.mismatch[1].alarm = True
    page.hurry()
    page.reads("learning frozen")
    ground = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 384) == (scheme == "light")
    faint = page.run("""
        const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        const rgb = (colour) => {
            context.clearRect(0, 0, 1, 1);
            context.fillStyle = colour;
            context.fillRect(0, 0, 1, 1);
            return [...context.getImageData(0, 0, 1, 1).data];
        };
        const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (element) => {
            const colour = rgb(getComputedStyle(element).backgroundColor);
            return colour[3] === 255 ? colour : behind(element.parentElement);
        };
        const own = (element) => [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
        return [...document.querySelectorAll("body *")]
            .filter((element) => own(element) && element.checkVisibility() && !(element instanceof SVGElement))
            .map((element) => {
                const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))];
                return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 100)];
            })
            .filter(([contrast]) => contrast < 4.5);
    """)
    assert faint == []


@SIZES
def test_who_listens_to_the_page_is_told_what_things_are(page: Browser, size: tuple[int, int]):
    page.size(*size)
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
    ]
    assert [each for each in found if each[0] in {"button", "textbox", "link", "table", "form"} and not each[1]] == []
    assert [name for role, name in found if role == "heading"][:2] == ["Croupier", "Routes"]
    assert {("navigation", "Routes"), ("table", "Arms"), ("textbox", "Decision")} <= set(found)
    assert ("button", "Switch off arm champion") in found
    assert {"Arm", "State", "Traffic"} <= {name for role, name in found if role == "columnheader"}
    assert len([name for role, name in found if role == "rowheader" and name.split(" ")[0] in ARMS]) >= len(ARMS)


def test_focus_outlives_a_refresh(page: Browser, fake: FakeAnswers):
    page.run("document.querySelector(arguments[0]).focus()", f"{arm('challenger')} button")
    fake.report.arms[1].decisions = 4321
    page.hurry()
    page.reads("4,321 decisions")
    assert page.driver.switch_to.active_element.accessible_name == "Switch off arm challenger"


# ------------------------------------------------------------------------------------------------- what is done


def say(page: Browser, **words: str) -> None:
    """Fills the open dialog in and confirms."""
    for name, said in words.items():
        field = page.find(f"dialog[open] [name={name}]")
        field.clear()
        field.send_keys(said)
    page.find("dialog[open] .actions button:last-child").click()


def test_an_arm_is_switched_off_by_keyboard(page: Browser, fake: FakeAnswers):
    """Nothing is posted before somebody has said who and why."""
    button = page.find(f"{arm('challenger')} button")
    page.run("arguments[0].focus()", button)
    keys = ActionChains(page.driver)
    keys.send_keys(Keys.ENTER).perform()
    told = page.reads("Switch off arm challenger of route credit", "#switch-dialog")
    assert "Its requests go to champion, newcomer." in told
    keys.send_keys(Keys.ESCAPE).perform()
    page.until(lambda: not page.find_all("dialog[open]"))
    assert page.driver.switch_to.active_element == button

    keys.send_keys(Keys.ENTER).perform()
    page.find("dialog[open]")
    keys.send_keys("Ann, risk" + Keys.TAB + Keys.TAB + Keys.TAB + Keys.ENTER).perform()  # without a why
    assert fake.posted == []
    page.find("#why").send_keys("it loses money")
    page.find("#switch-confirm").click()
    page.until(lambda: not page.find_all("dialog[open]"))
    assert fake.posted == [
        (
            "/v1/routes/credit/switch",
            {"arm": "challenger", "on": False, "who": "Ann, risk", "why": "it loses money"},
        )
    ]
    page.find(f"{arm('champion')} button").click()
    assert page.find("#who").get_attribute("value") == "Ann, risk"
    assert page.find("#why").get_attribute("value") == ""


def test_an_ejected_arm_is_switched_on_again(page: Browser, fake: FakeAnswers):
    page.find(f"{arm('canary-2')} button").click()
    page.reads("Switch on arm canary-2 of route credit", "#switch-dialog")
    say(page, who="Ann", why="mended")
    page.until(lambda: fake.posted)
    assert fake.posted[0][1] == {"arm": "canary-2", "on": True, "who": "Ann", "why": "mended"}


def test_learning_is_frozen(page: Browser, fake: FakeAnswers):
    page.find("#summary button").click()
    say(page, who="Ann", why="quarter's end")
    page.until(lambda: fake.posted)
    assert fake.posted[0] == (
        "/v1/routes/credit/switch",
        {"arm": "", "on": False, "who": "Ann", "why": "quarter's end"},
    )
    fake.report.frozen = True
    page.hurry()
    page.reads("learning frozen", "#summary .badges")
    assert page.find("#summary button").text == "Learn again…"


def test_the_last_arm_is_not_switched_off_without_a_warning(page: Browser, fake: FakeAnswers):
    for each in fake.report.arms[1:]:
        each.allowed = False
    page.hurry()
    page.reads("not drawn now", "#arms")
    page.find(f"{arm('champion')} button").click()
    page.reads("requests of this route will be refused", "#switch-dialog")


def test_a_refusal_is_shown_and_can_be_mended(page: Browser, fake: FakeAnswers):
    fake.refusal = "why: at most 1000 characters, got 1001"
    page.find(f"{arm('champion')} button").click()
    say(page, who="Ann", why="x")
    page.reads(fake.refusal, "#switch-dialog")
    fake.refusal = ""
    say(page, why="shorter")
    page.until(lambda: not page.find_all("dialog[open]"))
    assert [body["why"] for _, body in fake.posted] == ["x", "shorter"]
    assert "422" in "".join(page.complaints())


def test_the_configuration_is_reloaded(page: Browser, fake: FakeAnswers):
    page.find("[data-do=reload]").click()
    assert fake.reloads == 0
    page.find("#reload-dialog .danger").click()
    page.reads("routes.credit.arms.newcomer.model: forest is now trees", "#reloaded")
    assert fake.reloads == 1


# --------------------------------------------------------------------------------------------- when it is asked


def test_a_server_that_is_away_is_said_to_be_and_found_again(chromium: Browser, fake: FakeAnswers):
    page = chromium
    page.size(*DESK)
    with served(fake.app) as address:
        page.open(f"http://{address}/dashboard")
        page.reads("champion", "#arms")
    told = page.reads("The server does not answer.", "#notice")
    assert "What you see is of" in told
    assert page.text("#health") == ""  # nobody knows
    assert "0.560" in page.text("#arms")  # as it was
    with served(fake.app, address):
        page.until(lambda: page.text("#notice") == "")
        page.reads("live", "#pulse")
    page.driver.get("about:blank")
    page.heard()


def test_how_the_server_fares_is_said(page: Browser, fake: FakeAnswers):
    store, workers = StoreState(90.5, 1234), WorkersState(3, 4)
    fake.readiness = readiness(ready=False, store=store, workers=workers)
    page.hurry()
    told = page.reads("not ready", "#health")
    for said in ("3 of 4", "away for 90.5 s", "1,234"):
        assert said in told
    assert page.text("#notice") == ""
    fake.readiness = readiness(ready=False, draining=True)
    page.hurry()
    page.reads("draining", "#health")
    assert "503" in "".join(page.complaints())


def test_nothing_is_asked_while_nobody_looks(page: Browser, fake: FakeAnswers):
    page.driver.minimize_window()
    page.until(lambda: page.run("return document.hidden"))
    page.until(lambda: page.run("return (window.then ??= Date.now() + 500) < Date.now()"))  # the last round is over
    before = len(fake.asked)
    page.until(lambda: page.run("return window.then + 3000 < Date.now()"))  # time for another
    assert len(fake.asked) == before
    page.driver.set_window_rect(0, 0, *DESK)
    page.until(lambda: len(fake.asked) > before)
