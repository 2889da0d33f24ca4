//! Pages to look at: one file of HTML with everything in it, which a browser opens without a network.
//!
//! Text is escaped here, so a name of a file or class can never become markup. Colours follow the reader's choice of
//! light or dark.
//!
//! ```
//! use trainer::html::{Page, Table};
//!
//! let mut page = Page::new("Check of <pictures>");
//! page.section("Classes");
//! let mut table = Table::new(["class", "pictures"]).numbers_from(1);
//! table.row(["Dark", "195"]);
//! page.table(&table);
//! assert!(page.finish().contains("<title>Check of &lt;pictures&gt;</title>"));
//! ```

use std::fmt::{self, Write as _};

use base64::{Engine, prelude::BASE64_STANDARD};
use models::svg::escape;

const STYLE: &str = include_str!("html/style.css");

/// A page under construction, from the top to the bottom.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

/// The media types of the pictures that a page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `image/png`.
    Png,
    /// `image/jpeg`.
    Jpeg,
}

/// A small picture with what there is to say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Thumbnail {
    /// The encoded picture; none where there is nothing to show.
    pub picture: Option<(Media, Vec<u8>)>,
    /// Lines below it; the first one stands out.
    pub lines: Vec<String>,
}

/// A table under construction.
#[derive(Clone, Debug)]
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
    numbers_from: usize,
}

impl Page {
    /// An empty page, of which the title is the first heading.
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), body: String::new() }
    }

    /// Begins a section.
    pub fn section(&mut self, heading: &str) {
        self.push(format_args!("<h2>{}</h2>\n", escape(heading)));
    }

    /// A paragraph of text.
    pub fn paragraph(&mut self, text: &str) {
        self.push(format_args!("<p>{}</p>\n", escape(text)));
    }

    /// A line that a command printed, or that one may type.
    pub fn code(&mut self, text: &str) {
        self.push(format_args!("<pre><code>{}</code></pre>\n", escape(text)));
    }

    /// A table; wide ones scroll by themselves.
    pub fn table(&mut self, table: &Table) {
        let cells = |tag: &str, cells: &[String]| {
            let cell = |(column, text): (usize, &String)| {
                let class = if column >= table.numbers_from { r#" class="number""# } else { "" };
                format!("<{tag}{class}>{}</{tag}>", escape(text))
            };
            cells.iter().enumerate().map(cell).collect::<String>()
        };
        self.push(format_args!(
            "<div class=\"wide\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n",
            cells("th", &table.heads)
        ));
        for row in &table.rows {
            self.push(format_args!("<tr>{}</tr>\n", cells("td", row)));
        }
        self.push("</tbody></table></div>\n");
    }

    /// A drawing of this project, as [`Canvas::finish`](models::svg::Canvas::finish) gives it: it is taken as markup.
    pub fn svg(&mut self, svg: &str, caption: &str) {
        self.push(format_args!(
            "<figure><div class=\"wide\">{svg}</div><figcaption>{}</figcaption></figure>\n",
            escape(caption)
        ));
    }

    /// An encoded picture.
    pub fn picture(&mut self, media: Media, bytes: &[u8], caption: &str) {
        let (caption, source) = (escape(caption), data_uri(media, bytes));
        self.push(format_args!(
            "<figure><img src=\"{source}\" alt=\"{caption}\"><figcaption>{caption}</figcaption></figure>\n"
        ));
    }

    /// Small pictures side by side, which belong together.
    pub fn gallery(&mut self, thumbnails: &[Thumbnail]) {
        self.figures("gallery", thumbnails);
    }

    /// Pictures that are two side by side, with what there is to say about them.
    pub fn pairs(&mut self, pairs: &[Thumbnail]) {
        self.figures("gallery pairs", pairs);
    }

    fn figures(&mut self, class: &str, thumbnails: &[Thumbnail]) {
        self.push(format_args!("<div class=\"{class}\">\n"));
        for Thumbnail { picture, lines } in thumbnails {
            self.push("<figure>");
            match picture {
                Some((media, bytes)) => {
                    let alt = escape(lines.first().map_or("", String::as_str));
                    self.push(format_args!("<img loading=\"lazy\" src=\"{}\" alt=\"{alt}\">", data_uri(*media, bytes)));
                }
                None => self.push("<div class=\"blank\">no picture</div>"),
            }
            let lines: Vec<_> = lines.iter().map(|line| format!("<span>{}</span>", escape(line))).collect();
            self.push(format_args!("<figcaption>{}</figcaption></figure>\n", lines.join("")));
        }
        self.push("</div>\n");
    }

    /// The document.
    pub fn finish(self) -> String {
        let title = escape(&self.title);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}</body>\n</html>\n",
            self.body
        )
    }

    fn push(&mut self, markup: impl fmt::Display) {
        write!(self.body, "{markup}").expect("a String takes everything");
    }
}

impl Table {
    /// A table with these heads.
    pub fn new<T: Into<String>>(heads: impl IntoIterator<Item = T>) -> Self {
        Self { heads: heads.into_iter().map(Into::into).collect(), rows: Vec::new(), numbers_from: usize::MAX }
    }

    /// The columns from this one on, counted from 0, hold numbers, which stand below each other.
    pub fn numbers_from(self, column: usize) -> Self {
        Self { numbers_from: column, ..self }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// Where it has another number of cells than there are heads.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        assert_eq!(cells.len(), self.heads.len(), "cells and heads of a table");
        self.rows.push(cells);
    }
}

/// Bytes as an address that holds them (RFC 2397).
fn data_uri(media: Media, bytes: &[u8]) -> String {
    let media = match media {
        Media::Png => "image/png",
        Media::Jpeg => "image/jpeg",
    };
    format!("data:{media};base64,{}", BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_user_named_becomes_markup() {
        let hostile = "<script>alert('&\")</script>";
        let mut page = Page::new(hostile);
        page.section(hostile);
        page.paragraph(hostile);
        page.code(hostile);
        let mut table = Table::new([hostile, "n"]).numbers_from(1);
        table.row([hostile, "1"]);
        page.table(&table);
        page.picture(Media::Png, b"png", hostile);
        page.gallery(&[
            Thumbnail { picture: Some((Media::Jpeg, b"jpeg".to_vec())), lines: vec![hostile.to_owned()] },
            Thumbnail { picture: None, lines: vec!["gone.png".to_owned()] },
        ]);
        let html = page.finish();
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;alert(&#39;&amp;&quot;)&lt;/script&gt;"));
        assert!(html.contains(r#"<td class="number">1</td>"#) && html.contains("no picture"), "{html}");
    }

    #[test]
    fn pictures_and_drawings_are_inside() {
        let mut page = Page::new("t");
        page.picture(Media::Png, b"Man", "three bytes");
        page.svg("<svg/>", "a drawing");
        let html = page.finish();
        // RFC 4648: "Man" is TWFu.
        assert!(html.contains(r#"<img src="data:image/png;base64,TWFu" alt="three bytes">"#), "{html}");
        assert!(html.contains("<svg/>") && !html.contains("http"), "{html}");
    }
}
