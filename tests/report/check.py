"""Opens reports in Chromium: `check.py SKIPC OUT`. Every model of `models/` is compiled into a report, every kind of page and every
link of it is opened, the console has to be silent, and four questions of a stranger are answered by clicking. Screenshots go to OUT."""

import json
import pathlib
import subprocess
import sys
import time

from chromium import Page

MODELS = pathlib.Path("models")
LIMIT = 5_000_000
FIRST_PAINT = 1000
# Of values there are thousands, all drawn by one view: these many of each report are opened.
VALUES = 60


def run(*arguments):
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


def every_link(page, site):
    """Follows links from page to page; each has to lead somewhere."""
    waiting, seen, values = ["#/overview"], set(), 0
    while waiting:
        link = waiting.pop()
        if link in seen:
            continue
        if link.startswith("#/value/"):
            values += 1
            if values > VALUES:
                continue
        seen.add(link)
        page.value(f"location.hash = {json.dumps(link)}")
        page.settle()
        assert not page.value("!!document.getElementById('missing')"), f"{site}: {link} leads nowhere"
        found = page.value("[...document.querySelectorAll('a[href]')].map((it) => it.getAttribute('href'))")
        outside = [it for it in found if not it.startswith("#")]
        assert not outside, f"{site}: {link} leaves the report: {outside[:3]}"
        waiting.extend(it for it in dict.fromkeys(found) if it != "#main")
    return len(seen)


def four_questions(page):
    """The click paths of the four answers."""
    nav = "#side nav a"
    # Which ops became kernel k09? Kernels → k09.
    page.click(nav, "Kernels")
    page.click("#main a", "k09_gemm_128x128_gathered")
    ops = page.text("#kernel-ops")
    assert all(op in ops for op in ["matmul", "scale_rows", "rope"]), ops
    # Why is there no norm before it? The same page, the rule with both of its sides.
    rules = page.text()
    assert "norm_into_weight" in rules and "− matmul (rms_norm" in rules and "+ scale_rows (matmul" in rules, rules
    # What does block 5 cost at 10 %? Cost → the row of block 5.
    page.click(nav, "Cost against density")
    wanted = page.value("time(atDensity(R.costs[0].cost.layers.find((it) => it.name === 'blocks.5'), 0.1).time_ns)")
    page.value("(() => { const it = document.querySelector('input[data-layer=\"blocks.5\"]'); it.focus(); it.value = 2; it.dispatchEvent(new Event('input')); })()")
    row = page.text("[data-part='blocks.5']")
    assert "10 %" in row and wanted in row, (wanted, row)
    # Which line of the spec made step 40? Steps → step 40.
    page.click(nav, "Steps")
    page.click("#main a", "step 40")
    text = page.text()
    assert "{ kind = \"ffn\"" in page.text(".spec .hit") and "line 16 of models/kjv-12l-d25.toml" in text, text
    # The same by keyboard: find, type, Enter.
    page.value("(() => { const it = document.getElementById('find'); it.value = 'step 40'; it.dispatchEvent(new Event('input')); it.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' })); })()")
    page.settle()
    assert page.value("location.hash") == "#/step/score/40"


def one_report(site, shots, questions):
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    assert size <= LIMIT, f"{site}: {size} bytes"
    page = Page()
    page.open(site.joinpath("index.html").resolve().as_uri())
    # The scripts draw the first page before the load event.
    page.until("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
    paint = page.value("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert paint < FIRST_PAINT, f"{site}: drawn after {paint:.0f} ms"
    if questions:
        four_questions(page)
    started = time.monotonic()
    links = every_link(page, site)
    for name in ["overview", "model", "graph", "kernels", "memory", "cost", "rewrites"]:
        page.value(f"location.hash = '#/{name}'")
        page.settle()
        page.screenshot(shots / f"{site.name}-{name}.png")
    assert not page.errors, f"{site}: {page.errors[:5]}"
    page.close()
    print(f"{site.name}: {links} pages, {size / 1e6:.1f} MB, drawn after {paint:.0f} ms, {time.monotonic() - started:.1f} s", flush=True)


def main():
    skipc, out = sys.argv[1], pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    shots = out / "shots"
    shots.mkdir(exist_ok=True)
    example = MODELS / "kjv-12l-d25.toml"
    artefact = out / "kjv.skp"
    run(skipc, "compile", str(example), "--weights", str(example.with_suffix(".safetensors")), "--target", "cpu,cuda:sm_90a", "-o", str(artefact), "--report", str(out / "kjv"))
    one_report(out / "kjv", shots, questions=True)
    for spec in sorted(MODELS.glob("*.toml")):
        run(skipc, "inspect", str(spec), "--html", str(out / spec.stem))
        one_report(out / spec.stem, shots, questions=False)
    dark = Page(dark=True)
    dark.open((out / "kjv" / "index.html").resolve().as_uri())
    dark.screenshot(shots / "kjv-dark.png")
    dark.close()


if __name__ == "__main__":
    main()
