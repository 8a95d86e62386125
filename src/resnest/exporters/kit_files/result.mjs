// The network's outputs as they are.

export function result(outputs, sizes, labels, settings) {
  return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, Array.from(data, Number)]));
}
