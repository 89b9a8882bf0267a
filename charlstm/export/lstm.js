// The model of this page: an LSTM that predicts the next character, and the choice of one.
//
// For t = 1, 2, …, with x the character that was read last (one-hot, or embedded) or the output of the layer below:
//
//     m = 2 σ(M x) h                     the last output, scaled by the character in a first layer with M
//     z = W x + U m + b                  the four gates' pre-activations
//     i, f, o = σ(z_i), σ(z_f), σ(z_o)   input, forget and output gate
//     g = tanh(z_g)                      candidate
//     c = f c + i g                      cell state
//     h = o tanh(c)                      output
//
// The logits are W h + b of the output layer, or E (P h) + b with an embedding E, which is used twice.

"use strict";

const GATES = 4; // in the file's order: i, f, o, g
const COLDEST = 1e-30; // lower temperatures are raised to this one, which does not overflow
const GAIN = 2; // how fast the odds of a line end rise with the hazard that a line is behind by
const TAIL = 16; // hazard per length of the longest line beyond that length
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";

// -- weights --------------------------------------------------------------------------------------------------------

/** The bytes of a base85 text: five digits are four bytes, the highest first. */
function bytesOf(base85) {
  const values = new Uint8Array(128);
  for (let value = 0; value < DIGITS.length; value++) values[DIGITS.charCodeAt(value)] = value;
  const bytes = new DataView(new ArrayBuffer((base85.length / 5) * 4));
  for (let from = 0, to = 0, word = 0; to < bytes.byteLength; to += 4, word = 0) {
    for (let k = 0; k < 5; k++) word = word * 85 + values[base85.charCodeAt(from++)];
    bytes.setUint32(to, word);
  }
  return bytes.buffer;
}

/** The value of every 16-bit floating-point number, by its bits. */
function halfFloats() {
  const values = new Float64Array(1 << 16);
  for (let bits = 0; bits < 1 << 15; bits++) {
    const exponent = bits >> 10, fraction = (bits & 1023) / 1024;
    values[bits] = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
    values[bits | (1 << 15)] = -values[bits];
  }
  return values;
}

/** All arrays of the file by name: { rows, columns, values }, a vector being a matrix of one row. */
function readArrays(entries, base85) {
  const buffer = bytesOf(base85), half = halfFloats(), arrays = {};
  for (const { name, rows, columns, offset, bits } of entries) {
    const size = rows * columns, values = new Float64Array(size);
    if (bits === 16) {
      const stored = new Uint16Array(buffer, offset, size);
      for (let k = 0; k < size; k++) values[k] = half[stored[k]];
    } else {
      const scales = new Float32Array(buffer, offset, rows); // then the rows, as integers from -127 to 127
      const stored = new Int8Array(buffer, offset + 4 * rows, size);
      for (let k = 0, row = 0; row < rows; row++) {
        for (let end = k + columns; k < end; k++) values[k] = Math.fround(scales[row] * stored[k]);
      }
    }
    arrays[name] = { rows, columns, values };
  }
  return arrays;
}

/** Matrices of the four gates side by side, as [unit][input][gate]: a unit's gates are then one run of memory. */
function byUnit(matrices, hidden) {
  const inputs = matrices.reduce((sum, matrix) => sum + matrix.columns, 0);
  const result = new Float64Array(hidden * inputs * GATES);
  let first = 0;
  for (const { columns, values } of matrices) {
    for (let gate = 0, from = 0; gate < GATES; gate++) {
      for (let unit = 0; unit < hidden; unit++) {
        let to = (unit * inputs + first) * GATES + gate;
        for (let j = 0; j < columns; j++, to += GATES) result[to] = values[from++];
      }
    }
    first += columns;
  }
  return result;
}

// -- the model ------------------------------------------------------------------------------------------------------

/** Return y = M x + b, with M (rows × columns) row by row. */
function multiply(matrix, x, bias = null, y = new Float64Array(matrix.rows)) {
  const { rows, columns, values } = matrix;
  const whole = columns - (columns % 4);
  for (let row = 0, k = 0; row < rows; row++) {
    let p = bias ? bias[row] : 0, q = 0, r = 0, s = 0, j = 0; // four sums: an addition waits for the one before
    for (; j < whole; j += 4, k += 4) {
      p += values[k] * x[j];
      q += values[k + 1] * x[j + 1];
      r += values[k + 2] * x[j + 2];
      s += values[k + 3] * x[j + 3];
    }
    for (; j < columns; j++, k++) p += values[k] * x[j];
    y[row] = p + q + (r + s);
  }
  return y;
}

const sigmoid = (z) => 1 / (1 + Math.exp(-z));

/** A layer's step: reads `inputs`, and `start`, each unit's four pre-activations without them; changes c and h. */
function stepLayer(weights, inputs, start, from, c, h) {
  const width = inputs.length;
  for (let unit = 0, k = 0, s = from; unit < h.length; unit++, s += GATES) {
    let i = start[s], f = start[s + 1], o = start[s + 2], g = start[s + 3];
    for (let j = 0; j < width; j++, k += GATES) {
      const x = inputs[j];
      i += weights[k] * x;
      f += weights[k + 1] * x;
      o += weights[k + 2] * x;
      g += weights[k + 3] * x;
    }
    c[unit] = sigmoid(f) * c[unit] + sigmoid(i) * Math.tanh(g);
    h[unit] = sigmoid(o) * Math.tanh(c[unit]);
  }
}

class Model {
  constructor({ characters, hidden, layers, embedding, residual, stops, lineChars, opening, arrays: entries }, base85) {
    const arrays = readArrays(entries, base85);
    this.characters = Array.from(characters); // code points: a character beyond U+FFFF is one
    this.ids = new Map(this.characters.map((character, id) => [character, id]));
    this.lineEnd = this.ids.get("\n");
    this.ends = new Set(["\n", ...stops].flatMap((stop) => this.ids.get(stop) ?? [])); // of lines and sentences
    this.runs = new Set(this.characters.flatMap((c, id) => (/[^\p{L}\p{N}\n]/u.test(c) ? [id] : [])));
    this.hazard = lineHazard(lineChars);
    this.opening = opening; // what is read before a text without a prompt
    this.hidden = hidden;
    this.residual = residual;
    this.embedding = embedding ? arrays["embed.E"] : null;
    this.layers = [];
    for (let k = 1; k <= layers; k++) {
      const [W, U, b] = ["W", "U", "b"].map((part) => arrays[`layer${k}.${part}`]);
      const bias = byUnit([{ columns: 1, values: b.values }], hidden);
      if (k > 1 || embedding) this.layers.push({ weights: byUnit([W, U], hidden), start: bias, inputs: W.columns });
      else this.layers.push({ weights: byUnit([U], hidden), start: this.characterRows(W, bias), inputs: 0 });
    }
    const M = arrays["layer1.M"], E = this.embedding?.values;
    const oneHot = (id) => Float64Array.from(this.characters, (_, k) => Number(k === id));
    this.inputOf = (id) => (embedding ? E.subarray(id * embedding, (id + 1) * embedding) : oneHot(id));
    this.scales = M && this.characters.map((_, id) => multiply(M, this.inputOf(id)).map((a) => 2 * sigmoid(a)));
    this.projection = embedding ? arrays["out.P"] : null;
    this.top = this.embedding || arrays["out.W"];
    this.topBias = arrays["out.b"].values;
  }

  /** What each one-hot character adds to z, bias included: its column of W, as one row. */
  characterRows(W, bias) {
    const rows = new Float64Array(W.columns * bias.length);
    for (let r = 0, k = 0; r < W.rows; r++) {
      const place = (r % this.hidden) * GATES + Math.floor(r / this.hidden); // rows of W are gate by gate
      for (let id = 0; id < W.columns; id++) rows[id * bias.length + place] = W.values[k++] + bias[place];
    }
    return rows;
  }

  /** The characters' ids; an empty prompt begins a line or a paragraph, as in `charlstm sample`. */
  encode(prompt) {
    const characters = Array.from(prompt || this.opening);
    const unknown = [...new Set(characters.filter((character) => !this.ids.has(character)))];
    if (unknown.length) throw new RangeError(`the model never saw ${JSON.stringify(unknown.slice(0, 8).join(" "))}`);
    return characters.map((character) => this.ids.get(character));
  }

  /** The state before the first character, with room for what a step computes. */
  begin() {
    const zeros = (n) => new Float64Array(n);
    const layers = this.layers.map(({ inputs }) => ({
      inputs: zeros(inputs + this.hidden), // the layer's input, then its own last output
      c: zeros(this.hidden),
      h: zeros(this.hidden),
    }));
    return { layers, projected: zeros(this.projection ? this.projection.rows : 0), logits: zeros(this.top.rows) };
  }

  /** Read a character; `state.logits` then predict the next one. */
  step(state, id) {
    let below = this.embedding && this.inputOf(id);
    for (let k = 0; k < this.layers.length; k++) {
      const { weights, start, inputs } = this.layers[k], layer = state.layers[k];
      if (inputs) layer.inputs.set(below);
      const scale = k ? null : this.scales?.[id]; // of the first layer
      layer.inputs.set(scale ? layer.h.map((h, unit) => h * scale[unit]) : layer.h, inputs);
      stepLayer(weights, layer.inputs, start, inputs ? 0 : id * GATES * this.hidden, layer.c, layer.h);
      below = this.residual && k ? layer.h.map((h, unit) => h + below[unit]) : layer.h;
    }
    if (this.projection) {
      multiply(this.projection, below, null, state.projected);
      below = state.projected;
    }
    multiply(this.top, below, this.topBias, state.logits);
  }
}

// -- the choice of a character: charlstm/nn/decoding.py says why ----------------------------------------------------

/** Uniform random numbers in [0, 1): "small fast counter" with 32 bits, by Chris Doty-Humphrey. */
function randomNumbers(seed) {
  let a = seed >>> 0, b = Math.floor(seed / 2 ** 32) >>> 0, c = 0, counter = 1;
  const next = () => {
    const sum = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let k = 0; k < 15; k++) next(); // until every bit of the seed has reached every bit of the state
  return next;
}

const largest = (scores) => scores.reduce((a, b) => Math.max(a, b));

/** The logarithm of the sum of exp(score). */
function logSum(scores) {
  const top = largest(scores);
  return top + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - top), 0));
}

/** Keep the likeliest characters that together reach the probability topP, and set the scores of the others to -∞. */
function truncate(scores, topP) {
  if (topP === 1) return;
  const sum = logSum(scores);
  const p = scores.map((score) => Math.exp(score - sum));
  const least = (1 - topP) / p.length; // all that are less likely make up less than 1 - topP
  const ranked = Array.from(p.keys()).filter((id) => p[id] >= least).sort((a, b) => p[b] - p[a]);
  let upTo = 0;
  const kept = new Set(ranked.filter((id) => (upTo += p[id]) - p[id] < topP)); // the likelier ones do not reach topP
  for (let id = 0; id < p.length; id++) if (!kept.has(id)) scores[id] = -Infinity;
}

/** The scores whose softmax is the distribution to choose from, and the log odds of a line end, raised by `boost`. */
function logScores({ ends, lineEnd, runs }, logits, { temperature, topP }, boost, before) {
  if (temperature === 1 && topP === 1) return { scores: logits, logOdds: -Infinity };
  const V = logits.length, run = V > 2 && runs.has(before) ? before : undefined, end = V > 1 ? lineEnd : undefined;
  let scores = logits.map((logit, id) => (id === run || id === end ? -Infinity : logit));
  const others = logSum(scores);
  const logOdds = end === undefined ? -Infinity : logits[end] - logSum([others, logits[run] ?? -Infinity]) + boost;
  if (ends.size + 1 < V) { // the ends of sentences keep their probability, the others share the rest
    const sharp = scores.map((score, id) => (ends.has(id) ? -Infinity : score / Math.max(temperature, COLDEST)));
    const shift = logSum(scores.filter((_, id) => !ends.has(id))) - logSum(sharp);
    scores = scores.map((score, id) => (ends.has(id) ? score : sharp[id] + shift));
  }
  truncate(scores, topP);
  if (run !== undefined) scores[run] = logits[run] - others + logSum(scores); // their odds do not change
  if (end !== undefined) scores[end] = logOdds + logSum(scores);
  return { scores, logOdds };
}

/** H: a fraction exp(-H(m)) of the text's lines, empty ones apart, has at least m characters. From their quantiles. */
function lineHazard(quantiles) {
  const lengths = quantiles.filter((chars) => chars > 0);
  if (!lengths.length) return () => 0;
  const last = lengths.length - 1, n = Math.max(1, last);
  const knots = [], hazard = [];
  lengths.forEach((chars, k) => {
    if (chars === knots.at(-1)) return;
    knots.push(chars);
    hazard.push(-Math.log(k < last ? 1 - k / n : 0.5 / n));
  });
  return (chars) => {
    const k = knots.findIndex((knot) => knot > chars);
    if (k === 0) return hazard[0];
    if (k < 0) return hazard.at(-1) + ((chars - knots.at(-1)) * TAIL) / lengths[last];
    return hazard[k - 1] + ((chars - knots[k - 1]) / (knots[k] - knots[k - 1])) * (hazard[k] - hazard[k - 1]);
  };
}

/** Write a text: yields null while the prompt is read, then each new character with its surprise, in nats. */
function* write(model, ids, settings) {
  const { hazard, lineEnd } = model;
  const random = randomNumbers(settings.seed), state = model.begin();
  let id = null;
  for (id of ids) {
    model.step(state, id);
    yield null;
  }
  let chars = ids.length - 1 - ids.lastIndexOf(lineEnd); // of the line so far
  let spent = hazard(chars); // the chance to end that it had
  for (let made = 0; made < settings.length; made++) {
    if (made) model.step(state, id);
    if (id === null) id = Math.floor(random() * model.characters.length); // there is nothing yet to predict from
    else if (settings.temperature === 0) id = state.logits.indexOf(largest(state.logits));
    else {
      const behind = Math.max(0, hazard(chars) - spent);
      const { scores, logOdds } = logScores(model, state.logits, settings, GAIN * behind, id);
      const sum = logSum(scores);
      let rest = random();
      id = scores.findIndex((score) => (rest -= Math.exp(score - sum)) < 0);
      if (id < 0) id = scores.indexOf(largest(scores)); // rounding left something of the rest
      if (chars) spent += Math.max(0, logOdds) + Math.log1p(Math.exp(-Math.abs(logOdds))); // -log(1 - p)
    }
    [chars, spent] = id === lineEnd ? [0, 0] : [chars + 1, spent];
    yield { character: model.characters[id], surprise: logSum(state.logits) - state.logits[id] };
  }
}
