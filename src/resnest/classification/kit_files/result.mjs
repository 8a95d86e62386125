// From a classifier's logits to labels with their scores.

const TOP = 5;

export function result(outputs, sizes, labels, settings) {
  const logits = Array.from(outputs.logits.data);
  let scores;
  if (settings.multi_label) { // an independent score for each class
    scores = logits.map((value) => 1 / (1 + Math.exp(-value)));
  } else {
    const most = Math.max(...logits);
    const parts = logits.map((value) => Math.exp(value - most));
    const sum = parts.reduce((total, part) => total + part, 0);
    scores = parts.map((part) => part / sum);
  }
  const order = scores.map((_, k) => k).sort((a, b) => scores[b] - scores[a] || a - b);
  const shown = settings.multi_label ? order.filter((k) => scores[k] >= settings.threshold) : order.slice(0, TOP);
  return { top: shown.map((k) => ({ label: labels[k], score: Math.round(scores[k] * 1e6) / 1e6 })) };
}
