// Runs `true` in Anthropic's sandbox-runtime as a library, its proxies already up, and prints the times in microseconds.
import { spawnSync } from "node:child_process";
import { pathToFileURL } from "node:url";

const [module, count] = process.argv.slice(2);
const { SandboxManager } = await import(pathToFileURL(module).href);
await SandboxManager.initialize({
  network: { allowedDomains: [], deniedDomains: [] },
  filesystem: { denyRead: [], allowRead: [], allowWrite: [process.cwd()], denyWrite: [] },
});
const times = [];
for (let round = 0; round <= Number(count); round++) {
  const began = process.hrtime.bigint();
  const command = await SandboxManager.wrapWithSandbox("true");
  const ended = spawnSync(command, { shell: true, stdio: ["ignore", "ignore", "pipe"] });
  const spent = process.hrtime.bigint() - began;
  if (ended.status !== 0) {
    throw new Error(`true ended with ${ended.status}: ${ended.stderr}`);
  }
  SandboxManager.cleanupAfterCommand();
  // The first one warms the caches.
  if (round > 0) {
    times.push(Math.round(Number(spent) / 1000));
  }
}
console.log(JSON.stringify(times));
await SandboxManager.reset();
process.exit(0);
