//! What was found, as the files of `results/`.

use std::{fs, io, path::Path};

use super::{
    Plan,
    table::{millis, whole},
};

/// What a run writes is between these lines; what is around them is written by people.
const BEGIN: &str = "<!-- written by the scale model: begin -->\n";
const END: &str = "<!-- written by the scale model: end -->\n";

/// All tables and plots of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// In the order of reading.
    pub sections: Vec<Section>,
    /// File names, and the SVG in them.
    pub plots: Vec<(String, String)>,
}

/// A part of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    title: &'static str,
    text: String,
}

impl Section {
    pub(super) fn new(title: &'static str, text: String) -> Self {
        Self { title, text }
    }
}

impl Findings {
    /// The tables, as Markdown.
    pub fn text(&self) -> String {
        let section =
            |section: &Section| format!("\n## {}\n\n{}\n", section.title, section.text.trim_end());
        self.sections.iter().map(section).collect()
    }

    /// Writes the plots into the folder, and the tables into its `README.md`, between the lines that
    /// say so, or at its end.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (name, svg) in &self.plots {
            fs::write(folder.join(name), svg)?;
        }
        let readme = folder.join("README.md");
        let present = match fs::read_to_string(&readme) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        fs::write(readme, between_marks(&present, &self.text()))
    }
}

fn between_marks(present: &str, text: &str) -> String {
    let (before, rest) = present.split_once(BEGIN).unwrap_or((present, END));
    let after = rest.split_once(END).map_or("", |(_, after)| after);
    format!("{before}{BEGIN}{text}\n{END}{after}")
}

/// What the run was told to model.
pub(super) fn assumptions(plan: &Plan) -> Section {
    let regions: Vec<String> = plan.regions.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} nodes in {} regions ({}), {} agents, seed {}. One way takes {} within a region and {} \
         between regions; a node is one processor, which takes {} for each frame at each end, and at \
         a change of members {} for each session and each record that it has.",
        plan.nodes(),
        plan.regions.len(),
        regions.join(", "),
        whole(plan.agents),
        plan.seed,
        millis(plan.pace.near),
        millis(plan.pace.far),
        micros(plan.pace.frame),
        micros(plan.pace.change),
    );
    Section::new("What is modelled", text)
}

fn micros(time: std::time::Duration) -> String {
    format!("{} µs", time.as_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_around_the_marks_stays() {
        let first = between_marks("# Title\n\n", "one");
        assert_eq!(first, format!("# Title\n\n{BEGIN}one\n{END}"));
        let second = between_marks(&format!("{first}The end.\n"), "two");
        assert_eq!(second, format!("# Title\n\n{BEGIN}two\n{END}The end.\n"));
    }

    #[test]
    fn files_are_written_and_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let sections = vec![Section::new("Title", "Text.\n".to_owned())];
        let plots = vec![("a.svg".to_owned(), "<svg/>".to_owned())];
        let findings = Findings { sections, plots };
        let read = || fs::read_to_string(folder.path().join("README.md")).expect("it was written");
        findings.write(folder.path()).expect("there is room");
        let first = read();
        findings.write(folder.path()).expect("there is room");
        assert_eq!(read(), first);
        assert!(first.contains("\n## Title\n\nText.\n"));
    }
}
