"use strict";
(() => {
	const report = JSON.parse(document.getElementById("report").textContent);
	const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
	const seconds = (ms) => ms / 1000;
	const element = (parent, tag, className, text) => {
		const e = parent.appendChild(document.createElement(tag));
		if (className) e.className = className;
		if (text !== undefined) e.textContent = text;
		return e;
	};
	const width = () => Math.max(320, Math.min(1060, document.body.clientWidth - 48));

	// marks draws a dashed line where each round began, and a cross for each failure.
	const marks = (failures) => ({
		hooks: {
			draw: (u) => {
				const { ctx, bbox } = u;
				ctx.save();
				ctx.strokeStyle = ctx.fillStyle = css("--mark");
				ctx.lineWidth = devicePixelRatio;
				ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
				ctx.textAlign = "left";
				ctx.textBaseline = "top";
				ctx.setLineDash([4, 4]);
				for (const r of report.rounds) {
					const x = u.valToPos(seconds(r.atMs), "x", true);
					if (x < bbox.left || x > bbox.left + bbox.width) continue;
					ctx.beginPath();
					ctx.moveTo(x, bbox.top);
					ctx.lineTo(x, bbox.top + bbox.height);
					ctx.stroke();
					ctx.fillText(`round ${r.round}`, x + 4 * devicePixelRatio, bbox.top + 2);
				}
				ctx.setLineDash([]);
				ctx.strokeStyle = css("--bad");
				ctx.lineWidth = 2 * devicePixelRatio;
				for (const f of failures) {
					const x = u.valToPos(seconds(f.atMs), "x", true);
					const y = Math.max(bbox.top, Math.min(bbox.top + bbox.height, u.valToPos(f.tookMs, "y", true)));
					const d = 4 * devicePixelRatio;
					ctx.beginPath();
					ctx.moveTo(x - d, y - d);
					ctx.lineTo(x + d, y + d);
					ctx.moveTo(x - d, y + d);
					ctx.lineTo(x + d, y - d);
					ctx.stroke();
				}
				ctx.restore();
			},
		},
	});

	// keys lets the arrow keys move the cursor of a chart that has the focus.
	const keys = (box, u) => {
		let at = -1;
		box.addEventListener("keydown", (e) => {
			const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[e.key];
			if (step === undefined) return;
			e.preventDefault();
			at = Math.max(0, Math.min(u.data[0].length - 1, at + step));
			u.setCursor({ left: u.valToPos(u.data[0][at], "x"), top: 10 });
		});
	};

	const axis = (label, size) => ({
		label, labelSize: 20, size, stroke: css("--fg"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") },
	});
	const chart = (parent, title, label, data, series, failures, unit) => {
		const box = element(parent, "div", "chart");
		box.tabIndex = 0;
		box.setAttribute("role", "img");
		box.setAttribute("aria-label", `${title}. Left and right arrow move the cursor.`);
		const value = (u, v) => (v == null ? "–" : `${v} ${unit}`);
		const u = new uPlot({
			title, width: width(), height: 240, plugins: [marks(failures)], cursor: { sync: { key: "time" } },
			scales: { x: { time: false }, y: { range: (u, min, max) => [0, Math.max(max, 1) * 1.1] } },
			axes: [axis("seconds", 32), axis(label, 56)],
			series: [{ label: "at", value: (u, v) => (v == null ? "–" : `${v.toFixed(1)} s`) }, ...series.map((s) => ({ value, ...s }))],
		}, data, box);
		keys(box, u);
		return u;
	};

	const line = (label, color, dash) => ({ label, stroke: css(color), width: 2, dash, points: { show: false } });
	const draw = () => {
		const parent = document.getElementById("charts");
		parent.textContent = "";
		const times = [...new Set(report.timeline.map((p) => p.atMs))].sort((a, b) => a - b);
		const x = times.map(seconds);
		const sum = (field) => {
			const by = new Map();
			for (const p of report.timeline) by.set(p.atMs, (by.get(p.atMs) || 0) + p[field]);
			return times.map((t) => Math.round((by.get(t) || 0) * 10)); // of a tenth of a second
		};
		const charts = [chart(parent, "All requests", "a second", [x, sum("ok"), sum("failed")],
			[line("answered", "--p50"), line("failed", "--bad", [2, 3])], [], "/s")];
		for (const kind of report.kinds.map((k) => k.kind)) {
			const by = new Map(report.timeline.filter((p) => p.kind === kind).map((p) => [p.atMs, p]));
			const of = (field) => times.map((t) => (by.has(t) && by.get(t).ok > 0 ? by.get(t)[field] : null));
			const failures = report.failures.filter((f) => f.kind === kind);
			charts.push(chart(parent, `Latency of ${kind}${failures.length ? ` (× failed or closed: ${failures.length})` : ""}`, "milliseconds",
				[x, of("p50Ms"), of("p99Ms"), of("maxMs")],
				[line("p50", "--p50"), line("p99", "--p99", [6, 3]), { ...line("longest", "--dim", [1, 3]), width: 1 }], failures, "ms"));
		}
		document.body.dataset.charts = charts.length;
	};

	const lives = () => {
		const parent = document.getElementById("lives");
		const end = Math.max(report.tookMs, 1);
		const share = (ms) => `${Math.max(0, Math.min(100, (100 * ms) / end))}%`;
		for (const p of report.processes) {
			const row = element(parent, "div", "life");
			const name = `${p.pid} ${(p.args || []).join(" ")}`;
			element(row, "div", "name", name).title = name;
			const track = element(row, "div", "track");
			const until = p.untilMs == null ? end : p.untilMs;
			const bar = element(track, "div", "bar");
			bar.style.left = share(p.fromMs);
			bar.style.width = share(until - Math.max(0, p.fromMs));
			bar.title = `${seconds(Math.max(0, p.fromMs)).toFixed(2)} s to ${p.untilMs == null ? "the end" : `${seconds(until).toFixed(2)} s`}`;
			for (const r of report.rounds) element(track, "div", "round").style.left = share(r.atMs);
			const served = Object.entries(report.workers || {}).filter(([who]) => new RegExp(`(^|\\D)${p.pid}(\\D|$)`).test(who));
			element(row, "div", "count", served.length ? `${served.reduce((n, [, k]) => n + k, 0)} answers` : "");
		}
	};

	const histogram = () => {
		const parent = document.getElementById("histogram");
		const most = Math.max(1, ...report.histogram.map((b) => b.count));
		for (const b of report.histogram) {
			const bar = element(parent, "div");
			bar.style.height = `${b.count ? Math.max(1, 100 * (Math.log(1 + b.count) / Math.log(1 + most))) : 0}%`;
			bar.title = `up to ${b.uptoMs} ms: ${b.count}`;
		}
		const axis = parent.nextElementSibling;
		for (const b of [report.histogram[0], report.histogram.at(-1)]) if (b) element(axis, "span", "", `${b.uptoMs} ms`);
	};

	draw();
	lives();
	histogram();
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
	for (const event of ["beforeprint", "afterprint"]) addEventListener(event, draw);
	let resize;
	addEventListener("resize", () => {
		clearTimeout(resize);
		resize = setTimeout(draw, 200);
	});
})();
