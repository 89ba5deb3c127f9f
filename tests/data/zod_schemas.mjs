// Writes zod_schemas.json: the JSON schemas that clients send for the types of zod, by the packages themselves.
//
//   npm install zod@4.6.7 openai@6.49.0 ai@6.0.326 && cp …/tests/data/zod_schemas.mjs . && node zod_schemas.mjs > zod_schemas.json
//
// The Vercel AI SDK (`ai`) has the schemas of draft 7, z.toJSONSchema() (ollama-js) those of 2020-12. What a package
// refuses to represent, such as sets and dates, no client sends.
import { z } from "zod";
import { zodResponseFormat } from "openai/helpers/zod";
import { zodSchema } from "ai";

const Node = z.object({ name: z.string(), get children() { return z.array(Node); } });
const Cat = z.object({ kind: z.literal("cat"), lives: z.number().int() });
const Dog = z.object({ kind: z.literal("dog"), name: z.string() });
const Address = z.object({ street: z.string(), zip: z.string().regex(/^\d{5}$/) }).meta({ id: "Address" });
const types = {
  string: z.string(), string_length: z.string().min(2).max(10), trimmed: z.string().trim(), regex: z.string().regex(/^[A-Z]{3}-\d+$/),
  regex_and_length: z.string().regex(/^[a-z]+$/).max(8), starts_with: z.string().startsWith("ab"), ends_with: z.string().endsWith("yz"),
  includes: z.string().includes("x"), lowercase: z.string().lowercase(), uppercase: z.string().uppercase(), 
  template: z.templateLiteral(["id-", z.number().int()]),
  number: z.number(), int: z.int(), number_int: z.number().int(), int32: z.int32(), uint32: z.uint32(), float32: z.float32(), float64: z.float64(),
  positive: z.number().positive(), nonnegative_int: z.number().int().nonnegative(), bounds: z.number().int().min(1).max(100),
  percent: z.number().min(0).max(1), multiple: z.number().multipleOf(0.5), 
  boolean: z.boolean(), null: z.null(),
  email: z.email(), uuid: z.uuid(), uuidv4: z.uuidv4(), uuidv7: z.uuidv7(), guid: z.guid(), url: z.url(), httpUrl: z.httpUrl(), hostname: z.hostname(),
  date: z.iso.date(), time: z.iso.time(), datetime: z.iso.datetime(), datetime_offset: z.iso.datetime({ offset: true }), duration: z.iso.duration(),
  ipv4: z.ipv4(), ipv6: z.ipv6(), cidrv4: z.cidrv4(), cidrv6: z.cidrv6(), mac: z.mac(),
  base64: z.base64(), base64url: z.base64url(), hex: z.hex(), hash: z.hash("sha256"), jwt: z.jwt(), emoji: z.emoji(), nanoid: z.nanoid(), cuid: z.cuid(), cuid2: z.cuid2(), ulid: z.ulid(), xid: z.xid(), ksuid: z.ksuid(), e164: z.e164(),
  stringbool: z.stringbool(),
  enum: z.enum(["red", "green"]), number_enum: z.enum({ A: 1, B: 2 }), literal: z.literal("a"), literals: z.literal(["a", 1, true, null]),
  array: z.array(z.string()), array_bounds: z.array(z.number()).min(1).max(3), nonempty: z.array(z.string()).nonempty(),
  tuple: z.tuple([z.string(), z.number()]), tuple_rest: z.tuple([z.string()], z.number()),
  object: z.object({ a: z.string(), b: z.object({ c: z.number() }) }), strict_object: z.strictObject({ a: z.string() }), loose_object: z.looseObject({ a: z.string() }), catchall: z.object({ a: z.string() }).catchall(z.number()),
  record: z.record(z.string(), z.number()), record_enum: z.record(z.enum(["a", "b"]), z.number()), partial_record: z.partialRecord(z.enum(["a", "b"]), z.number()), record_regex: z.record(z.string().regex(/^x-/), z.string()),
  union: z.union([z.string(), z.number()]), union_objects: z.union([z.object({a: z.string()}), z.object({b: z.number()})]),
  discriminated: z.discriminatedUnion("kind", [Cat, Dog]), discriminated_ids: z.discriminatedUnion("kind", [Cat.meta({id: "Cat"}), Dog.meta({id: "Dog"})]),
  xor: z.xor([z.string(), z.number()]),
  intersection: z.intersection(z.object({ a: z.string() }), z.object({ b: z.number() })), intersection_bounds: z.number().min(1).and(z.number().max(5)),
  nullable: z.string().nullable(), nullish: z.object({a: z.string().nullish()}), optional: z.object({ a: z.string().optional() }), default: z.object({ a: z.string().default("x") }), prefault: z.object({a: z.string().prefault("x")}), catch: z.object({ a: z.string().catch("x") }), readonly: z.array(z.string()).readonly(),
  described: z.string().describe("a name"), coerce_number: z.coerce.number(), coerce_string: z.coerce.string(),
  pipe: z.string().pipe(z.string().max(5)), transform: z.string().transform((s) => s.length), preprocess: z.preprocess((v) => v, z.string()), branded: z.string().brand("B"), lazy: z.lazy(() => z.string()),
  recursive: Node, named: z.object({ home: Address, work: Address }), nested_nullable: z.object({ a: Address.nullable() }),
  any: z.any(), unknown: z.unknown(), json: z.json(), never: z.object({a: z.never().optional()}), 
};
const ways = [
  (schema) => zodResponseFormat(schema, "x").json_schema.schema,
  (schema) => zodSchema(schema).jsonSchema,
  (schema) => z.toJSONSchema(schema),
];
const lines = [];
for (const [name, type] of Object.entries(types)) {
  const schemas = new Set();
  for (const make of ways) {
    try {
      const { $schema, ...schema } = await make(z.object({ value: type }));
      schemas.add(JSON.stringify(schema));
    } catch {} // the package refuses the type
  }
  lines.push(`${JSON.stringify(name)}: [${[...schemas].join(", ")}]`);
}
console.log(`{\n${lines.join(",\n")}\n}`);
