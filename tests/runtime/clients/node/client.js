// Asks with Node's own gRPC library: node client.js ADDRESS PROTO. Exits with 0 when every answer is right.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { promisify } = require("node:util");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, proto] = process.argv.slice(2);
const options = { keepCase: true, defaults: true, enums: String, longs: Number };
const { inference } = grpc.loadPackageDefinition(loader.loadSync(proto, options));
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());
const call = (method, request) => promisify(client[method].bind(client))(request);

const NUMBERS = [1.5, NaN, -Infinity, 0];
const RAW = Buffer.from(Float32Array.from(NUMBERS).buffer);

const request = (given = {}) => ({
  model_name: "fp32",
  id: "7",
  parameters: { note: { string_param: "ignored" }, weight: { double_param: 0.5 } },
  inputs: [{ name: "x", datatype: "FP32", shape: [2, 2] }],
  raw_input_contents: [RAW],
  ...given,
});

async function refused(asked, code, sentence) {
  await assert.rejects(asked, (error) => error.code === code && sentence.test(error.details));
}

async function main() {
  assert.equal((await call("ServerReady", {})).ready, true);
  assert.equal((await call("ModelReady", { name: "fp32" })).ready, true);
  assert.equal((await call("ModelReady", { name: "nobody" })).ready, false);
  const { inputs, platform } = await call("ModelMetadata", { name: "fp32" });
  assert.equal(platform, "identity");
  assert.deepEqual(inputs[0].shape, [-1, -1]);
  const { models } = await call("RepositoryIndex", {});
  assert.ok(models.some(({ name, state }) => name === "fp32" && state === "READY"));
  const { config } = await call("ModelConfig", { name: "fp32" });
  assert.equal(config.input[0].data_type, "TYPE_FP32");

  const raw = await call("ModelInfer", request());
  assert.equal(raw.id, "7");
  assert.ok(raw.raw_output_contents[0].equals(RAW));
  const typed = await call(
    "ModelInfer",
    request({
      inputs: [{ name: "x", datatype: "FP32", shape: [2, 2], contents: { fp32_contents: NUMBERS } }],
      raw_input_contents: [],
    }),
  );
  assert.deepEqual(typed.outputs[0].contents.fp32_contents, NUMBERS);

  const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => call("ModelInfer", request({ id: `${i}` }))));
  assert.deepEqual(answers.map(({ id }) => id), answers.map((_, i) => `${i}`));

  const { success } = (await call("ModelStatistics", { name: "fp32" })).model_stats[0].inference_stats;
  assert.ok(success.count >= 52);

  await refused(call("ModelInfer", request({ model_name: "nobody" })), grpc.status.NOT_FOUND, /no model 'nobody'/);
  const short = request({ raw_input_contents: [RAW.subarray(1)] });
  await refused(call("ModelInfer", short), grpc.status.INVALID_ARGUMENT, /'x': FP32 of shape \[2, 2\] takes 16 bytes/);

  const stream = client.ModelStreamInfer();
  for (const id of ["a", "b"]) {
    stream.write(request({ id }));
    assert.equal((await once(stream, "data"))[0].id, id);
  }
  stream.end();
  stream.resume();
  await once(stream, "end");
  client.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
