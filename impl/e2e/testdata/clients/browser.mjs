// browser presses a person's button on the sign-in page of dev, and returns where it leads.
export const browse = async (at, person) => {
  const page = await fetch(at, { redirect: "manual" });
  const text = await page.text();
  if (page.status !== 200) throw new Error(`the sign-in page is ${page.status}: ${text}`);
  const unescape = (s) => s.replace(/&#(\d+);/g, (_, n) => String.fromCharCode(n)).replaceAll("&amp;", "&");
  const form = new URLSearchParams({ person });
  for (const [, name, value] of text.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)">/g)) {
    form.set(unescape(name), unescape(value));
  }
  const answer = await fetch(new URL(at.pathname, at), { method: "POST", body: form, redirect: "manual" });
  if (answer.status !== 303) throw new Error(`the sign-in is ${answer.status}: ${await answer.text()}`);
  return { location: new URL(answer.headers.get("location")), page: text };
};
