//! Values come back byte for byte.

use super::tools::{assert_value, binary, json};
use crate::contract::Store;
use crate::testkit::case::cases;
use crate::testkit::{Case, Outcome, Subject};
use crate::{Format, Value};

pub(super) fn cases() -> Vec<Case<dyn Store>> {
    cases!["values":
        json_comes_back_byte_for_byte,
        binary_comes_back_byte_for_byte,
        binary_that_looks_like_json_stays_binary,
        json_that_looks_like_binary_stays_json,
        batches_carry_values_byte_for_byte,
        a_value_changes_its_format,
        a_mebibyte_less_overhead_comes_back,
        deeply_nested_json_comes_back,
        long_text_of_wide_characters_comes_back,
        a_conditional_write_carries_values_byte_for_byte,
    ]
}

/// JSON that a parser, JSONB or a number type changes or refuses.
fn json_samples() -> Vec<Value> {
    [
        "null",
        "true",
        "\"\"",
        "\" \"",
        "0",
        "-0",
        "-0.0",
        "1e16",
        "1E+16",
        "1.10",
        "9007199254740993",
        "-9223372036854775809",
        "18446744073709551616",
        "1e400",
        "123456789012345678901234567890.123456789",
        r#"{"a":1,"a":2}"#,
        r#"{"b":1,"a":2}"#,
        r#""\u0000""#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\u00e9 é \/ \b""#,
        "\"\u{2028}\u{2029}\u{FEFF}\u{10FFFF}\"",
        "\"\u{7f}\u{85}\"",
        " { \"a\" : [ 1 , 2 ] }\n",
        "\t[]\r\n",
        "{}",
        r#"{"":{"":[]}}"#,
        r#"{"$":"'; DROP TABLE kv; --","@type":"x","__proto__":null}"#,
        r#""%s %d {} ? $1 :name \\ ''""#,
    ]
    .map(json)
    .into()
}

fn binary_samples() -> Vec<Value> {
    let all: Vec<u8> = (0..=255).collect();
    let mut samples: Vec<Value> = vec![binary([]), binary([0]), binary(all.clone()), binary([0xff, 0xfe, 0x00])];
    // Each byte alone and first: some store's marker is among them.
    samples.extend(all.iter().map(|byte| binary([*byte])));
    samples.extend(all.iter().map(|byte| binary([*byte, b'{', b'}'])));
    samples.push(binary(*b"\x1f\x8b\x08gzip"));
    samples.push(binary("\u{FEFF}text"));
    samples
}

async fn json_comes_back_byte_for_byte(subject: Subject<dyn Store>) -> Outcome {
    for value in json_samples() {
        subject.put("k", value.clone()).await?;
        assert_value(subject.get("k").await?, &value);
    }
    Ok(())
}

async fn binary_comes_back_byte_for_byte(subject: Subject<dyn Store>) -> Outcome {
    for value in binary_samples() {
        subject.put("k", value.clone()).await?;
        assert_value(subject.get("k").await?, &value);
    }
    Ok(())
}

async fn binary_that_looks_like_json_stays_binary(subject: Subject<dyn Store>) -> Outcome {
    for text in ["null", "\"x\"", "{}", "17", " [1]"] {
        subject.put("k", binary(text)).await?;
        assert_value(subject.get("k").await?, &binary(text));
        assert_eq!(subject.get("k").await?.map(|value| value.format()), Some(Format::Binary), "{text}");
    }
    Ok(())
}

async fn json_that_looks_like_binary_stays_json(subject: Subject<dyn Store>) -> Outcome {
    for text in
        ["\"AAECAw==\"", "\"\\\\x00ff\"", "\"binary\"", "{\"type\":\"Buffer\",\"data\":[1]}", "\":base64:AA==\""]
    {
        subject.put("k", json(text)).await?;
        assert_value(subject.get("k").await?, &json(text));
    }
    Ok(())
}

async fn batches_carry_values_byte_for_byte(subject: Subject<dyn Store>) -> Outcome {
    let samples: Vec<Value> = json_samples().into_iter().chain(binary_samples()).collect();
    let names: Vec<String> = (0..samples.len()).map(|index| format!("k{index}")).collect();
    let writes = names.iter().zip(&samples).map(|(name, value)| subject.put_op(name, value.clone())).collect();
    subject.write_all(writes).await?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (read, value) in subject.get_many(&names).await?.into_iter().zip(&samples) {
        assert_value(read, value);
    }
    Ok(())
}

async fn a_value_changes_its_format(subject: Subject<dyn Store>) -> Outcome {
    for value in [json("1"), binary("1"), json("{}"), binary([]), json("null")] {
        subject.put("k", value.clone()).await?;
        assert_value(subject.get("k").await?, &value);
    }
    Ok(())
}

async fn a_mebibyte_less_overhead_comes_back(subject: Subject<dyn Store>) -> Outcome {
    // NATS refuses messages over 1 MiB by default, and a message carries headers too.
    let size = subject.backend().capabilities().max_value_bytes.min((1 << 20) - 4096);
    let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
    let text = format!("\"{}\"", "x".repeat(size - 2));
    for value in [binary(bytes), json(text)] {
        subject.put("k", value.clone()).await?;
        assert_value(subject.get("k").await?, &value);
        assert_value(subject.get_many(&["k"]).await?.remove(0), &value);
    }
    Ok(())
}

async fn deeply_nested_json_comes_back(subject: Subject<dyn Store>) -> Outcome {
    let arrays = json(format!("{}{}", "[".repeat(Value::MAX_DEPTH), "]".repeat(Value::MAX_DEPTH)));
    let objects = json(format!("{}1{}", "{\"a\":".repeat(Value::MAX_DEPTH), "}".repeat(Value::MAX_DEPTH)));
    for value in [arrays, objects] {
        subject.put("k", value.clone()).await?;
        assert_value(subject.get("k").await?, &value);
    }
    Ok(())
}

async fn long_text_of_wide_characters_comes_back(subject: Subject<dyn Store>) -> Outcome {
    let value = json(format!("\"{}\"", "é😀\u{10FFFF}".repeat(10_000)));
    subject.put("k", value.clone()).await?;
    assert_value(subject.get("k").await?, &value);
    Ok(())
}

async fn a_conditional_write_carries_values_byte_for_byte(subject: Subject<dyn Store>) -> Outcome {
    for (index, value) in json_samples().into_iter().chain(binary_samples().into_iter().take(4)).enumerate() {
        let name = format!("k{index}");
        subject.create(&name, value.clone()).await?;
        assert_value(subject.get(&name).await?, &value);
        // Over the odd value too: where a revision is a digest, it is taken of these bytes.
        let revision = subject.revision(&name).await?;
        subject.update(&name, json("[\"other\"]"), revision).await?;
        let revision = subject.revision(&name).await?;
        subject.update(&name, value.clone(), revision).await?;
        assert_value(subject.get(&name).await?, &value);
    }
    Ok(())
}
