//! Any bytes as a file and variables: refused with a bounded message that names its place, or a valid
//! configuration that is the same when it is read again.

use ws_manager_pool::{ConfigLayers, ConfigOrigin};

/// A file of TOML, then after a line of `---` a variable on each line, without its prefix.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (file, variables) = text.split_once("\n---\n").unwrap_or((&text, ""));
    let variables = variables.lines().map(|line| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (format!("WS_POOL_{name}"), value.to_owned())
    });
    match ConfigLayers::new().toml("fuzz.toml", file).variables(variables).resolve() {
        Ok(resolved) => {
            assert_eq!(resolved.config().validate(), Ok(()));
            assert!(resolved.fields().all(|(field, _, origin)| resolved.origin(field) == Some(origin)));
            let again = ConfigLayers::new().toml("again.toml", resolved.to_string()).variables([("", "")]);
            assert_eq!(again.load().as_ref(), Ok(resolved.config()));
        }
        Err(error) => {
            assert!(error.to_string().len() < 800, "an error does not echo its input");
            assert!(!error.to_string().contains('\n'), "an error is one line");
            if let Some(ConfigOrigin::File { line, .. }) = error.origin() {
                assert!(*line <= file.lines().count() + 1);
            }
        }
    }
}
