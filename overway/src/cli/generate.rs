//! `overway completions` and `overway man`: what is made of the definition of the command line itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::failure::Failure;
use super::output;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell. For bash: `overway completions bash > /etc/bash_completion.d/overway`.
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory to write pages into; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Prints a shell's completions.
pub(crate) fn completions(
    args: &CompletionsArgs,
    mut command: Command,
) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "overway", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes `overway.1` and a page for each command.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<ExitCode, Failure> {
    let out = args.out.display();
    let wrong = |error| Failure::Failed(format!("cannot write man pages to {out}: {error}"));
    std::fs::create_dir_all(&args.out).map_err(wrong)?;
    clap_mangen::generate_to(command, &args.out).map_err(wrong)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_has_a_man_page() {
        let directory = tempfile::tempdir().unwrap();
        let args = ManArgs { out: directory.path().join("man1") };

        man(&args, crate::cli::Cli::command()).unwrap();

        let page = |name: &str| std::fs::read_to_string(args.out.join(name)).unwrap();
        assert!(page("overway.1").contains("overlay transport"));
        let commands = crate::cli::Cli::command();
        for command in commands.get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = page(&format!("overway-{}.1", command.get_name()));
            assert!(page.contains(".TH"), "{}", command.get_name());
        }
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut crate::cli::Cli::command(), "overway", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["trace", "events", "explain"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
