// The picture of the front page becomes live: a network in WebAssembly learns on with a row at the
// pointer. Without WebAssembly, or where the build had no compiler for it, the picture stays.
(async () => {
  const given = document.getElementById("live-network");
  const picture = document.querySelector('img[src*="moons"]');
  if (!given || !picture || !window.WebAssembly) return;
  const { module, width, height, box, points } = JSON.parse(given.textContent);
  const bytes = Uint8Array.from(atob(module), (letter) => letter.charCodeAt(0));
  const math = { expf: Math.exp, fabsf: Math.abs, log1pf: Math.log1p, sqrtf: Math.sqrt, tanhf: Math.tanh };
  const network = (await WebAssembly.instantiate(bytes, { math })).instance.exports;
  network.live_start();

  const canvas = Object.assign(document.createElement("canvas"), { width: 5 * width, height: 5 * height });
  canvas.className = "live-network";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", picture.alt);
  const small = Object.assign(document.createElement("canvas"), { width, height });
  const surface = new ImageData(width, height);
  const pen = canvas.getContext("2d");
  const [left, right, bottom, top] = box;
  const colors = [[99, 113, 207], [226, 226, 230], [196, 53, 80]];
  const dots = ["#3b4cc0", "#b40426"];
  let pointer = null; // x, y in the units of the data
  let target = 1;
  let frames = 0; // that are left: a second more than the pointer stays

  function dot(x, y, color, radius) {
    pen.beginPath();
    pen.arc(((x - left) / (right - left)) * canvas.width, ((top - y) / (top - bottom)) * canvas.height, radius, 0, 7);
    pen.fillStyle = color;
    pen.fill();
    pen.stroke();
  }

  function draw() {
    const values = new Float32Array(network.memory.buffer, network.live_draw(...box), width * height);
    values.forEach((p, i) => {
      const [low, high] = p < 0.5 ? [colors[0], colors[1]] : [colors[1], colors[2]];
      const share = p < 0.5 ? 2 * p : 2 * p - 1;
      for (let k = 0; k < 3; ++k) surface.data[4 * i + k] = low[k] + share * (high[k] - low[k]);
      surface.data[4 * i + 3] = 255;
    });
    small.getContext("2d").putImageData(surface, 0, 0);
    pen.drawImage(small, 0, 0, canvas.width, canvas.height);
    points.forEach(([x, y, label]) => dot(x, y, dots[label], 5));
    if (pointer) dot(...pointer, dots[target], 10);
  }

  function frame() {
    const [x, y] = pointer ?? [0, 0];
    for (let step = 0; step < 3; ++step) network.live_learn(x, y, target, pointer ? points.length / 5 : 0);
    draw();
    if (pointer || --frames > 0) requestAnimationFrame(frame);
  }

  function follow(event) {
    const place = canvas.getBoundingClientRect();
    const isIdle = !pointer && frames <= 0;
    pointer = [
      left + ((event.clientX - place.left) / place.width) * (right - left),
      top - ((event.clientY - place.top) / place.height) * (top - bottom),
    ];
    frames = 60;
    if (isIdle) requestAnimationFrame(frame);
  }

  canvas.addEventListener("pointermove", follow);
  canvas.addEventListener("pointerdown", (event) => {
    target = 1 - target;
    follow(event);
  });
  for (const end of ["pointerleave", "pointercancel"]) canvas.addEventListener(end, () => (pointer = null));

  const caption = document.createElement("p");
  caption.textContent =
    `Move the pointer over the picture. The network, exported by bx.export_c and compiled to ` +
    `${Math.ceil(bytes.length / 1000)} kB of WebAssembly, learns on with a row at the pointer. ` +
    `A click changes the class of that row.`;
  draw();
  picture.replaceWith(canvas);
  canvas.after(caption);
})();
